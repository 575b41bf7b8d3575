"""One training a folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Hold `<run_dir>/.lock`: two runs in one folder would overwrite each other's checkpoints.

    The kernel lets go of it when the process ends, however it ends. Where the file system knows no
    locks, there is none.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / ".lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ValueError(f"run_dir={run_dir} is in use by {holder}; give another run_dir") from error
        except OSError:
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
