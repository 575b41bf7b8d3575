"""Supervision of ranks that Lightning has started: the death of one must not cost the work of all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from lgm.lightning_internals import observe_ranks

_POLL_S = 0.5
# From a rank's death until this process is ended too: gloo reports it at once, and then a checkpoint is
# written. NCCL may let the first rank wait for ever.
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
        time.sleep(_PATIENCE_S)  # a daemon: it ends with the process, which its own collective has told
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
    observe_ranks(lambda ranks: _Watch(ranks).start())
