"""Throughput of the last minute, for progress lines and ETA."""

from __future__ import annotations

import time
from collections import deque


class RecentRate:
    """Steps and objects a second over the last `window_s` seconds."""

    def __init__(self, window_s: float = 60.0) -> None:
        self._window_s = window_s
        self._marks: deque[tuple[float, int, int]] = deque()  # time, steps, objects

    def mark(self, steps: int, objects: int, now: float | None = None) -> None:
        """Note that so many steps and objects are done altogether."""
        now = time.monotonic() if now is None else now
        self._marks.append((now, steps, objects))
        # Two marks stay, however old: a step may take longer than the window.
        while len(self._marks) > 2 and now - self._marks[0][0] > self._window_s:
            self._marks.popleft()

    def per_s(self) -> tuple[float, float] | None:
        """Steps and objects a second; None before the second mark."""
        if len(self._marks) < 2:
            return None
        (start, first_step, first_object), (end, step, objects) = self._marks[0], self._marks[-1]
        elapsed = max(end - start, 1e-9)
        return (step - first_step) / elapsed, (objects - first_object) / elapsed
