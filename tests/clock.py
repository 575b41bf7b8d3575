"""Time in tests: a clock that goes on only when it is told to, and waiting for what happens at last."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

# Not how long something may take, but when a test gives up on what hangs.
GIVE_UP_S = 300.0


class FakeClock:
    """Stands in a module for its `time`: what is measured by it is known exactly, on any machine."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


def wait_until(
    condition: Callable[[], object], process: subprocess.Popen | None = None, poll_s: float = 0.02
) -> None:
    """Until the condition holds; fails where that takes for ever, or the process ends before."""
    deadline = time.monotonic() + GIVE_UP_S
    while not condition():
        if process is not None and process.poll() is not None:
            assert condition(), f"the process ended too soon (exit code {process.returncode})"
            return
        assert time.monotonic() < deadline, f"not after {GIVE_UP_S:g} s"
        time.sleep(poll_s)
