"""One training a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lgm.files import Locked, locked


@contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Hold `<run_dir>/.lock`: two runs in one folder would overwrite each other's checkpoints.

    Raises ValueError naming the process that holds it. Where the file system knows no locks, there is none.
    """
    try:
        with locked(run_dir / ".lock", wait=False):
            yield
    except Locked as error:
        raise ValueError(f"run_dir={run_dir} is in use by {error.holder}; give another run_dir") from error
