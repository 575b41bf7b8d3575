"""Progress of a conversion: which stage runs, and how long each took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

OnStage = Callable[[str, float], None]


class Stages:
    """Times stages by name, and tells `on_stage` each one's name and fraction done, from 0 to 1.

    seconds: of the stages that have ended, in their order.
    """

    def __init__(self, on_stage: OnStage | None = None) -> None:
        self.on_stage = on_stage
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """One stage; gives a function that takes how many of its parts are done, and their number."""

        def progress(done: int, total: int) -> None:
            if self.on_stage:
                self.on_stage(name, done / total)

        start = time.perf_counter()
        progress(0, 1)
        yield progress
        progress(1, 1)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        return f"{sum(self.seconds.values()):.1f} s ({stages})"
