"""Ranks that Lightning has started, watched by the first: what one of them dies of must not cost the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from lightning.pytorch.strategies.launchers import subprocess_script
from torch import distributed

_POLL_S = 0.5
# From a rank's death until this process is ended too: gloo reports it at once, NCCL when it is told to give
# up, and then a checkpoint is written.
_ABORT_AFTER_S = 5.0
_PATIENCE_S = 120.0


class _Watch(threading.Thread):
    """In place of Lightning's observer, which kills the first rank within five seconds of another's death,
    in the middle of whatever it writes."""

    def __init__(self, ranks: Sequence[subprocess.Popen]) -> None:
        super().__init__(daemon=True, name="watch-ranks")
        self._ranks = ranks

    def run(self) -> None:
        while (codes := [rank.poll() for rank in self._ranks]) and any(code is None for code in codes):
            if any(codes):
                break
            time.sleep(_POLL_S)
        dead = next(((rank, code) for rank, code in enumerate(codes, 1) if code), None)
        if dead is None:
            return
        # This thread ends with the process, which has been told by its own collective, or is told now.
        time.sleep(_ABORT_AFTER_S)
        if distributed.is_initialized() and distributed.get_backend() == "nccl":
            with suppress(Exception):
                distributed.distributed_c10d._abort_process_group()
        time.sleep(_PATIENCE_S)
        for rank in self._ranks:
            rank.send_signal(signal.SIGKILL)
        sys.stderr.write(
            f"error: rank {dead[0]} has ended with exit code {dead[1]}, and rank 0 waits for it; the same "
            "command goes on from the last checkpoint\n"
        )
        sys.stderr.flush()
        os._exit(2)


def watch_peers() -> None:
    """From now on ranks that Lightning starts are watched so; may be called again."""
    subprocess_script._launch_process_observer = lambda ranks: _Watch(ranks).start()
