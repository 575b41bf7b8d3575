"""Timing of each part of a step by device events, without waiting for the device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch


class Moment(Protocol):
    """A point in time, as a device's event has it."""

    def record(self) -> None:
        """Take this as the moment; on a device, when its queue reaches this point."""

    def query(self) -> bool:
        """Whether the moment has passed."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds."""
        ...


class HostMoment:
    """A moment on the host's clock, where there is no device that runs behind."""

    def record(self) -> None:
        """Now."""
        self.time = time.perf_counter()

    def query(self) -> bool:
        """Always: the host's clock does not run behind."""
        return True

    def elapsed_time(self, end: HostMoment) -> float:
        """Milliseconds from this moment to `end`."""
        return (end.time - self.time) * 1e3


Lap = tuple[str, Moment, Moment]  # part, begin, end


class Stopwatch:
    """Each part of a step ends with a call of `mark`; the time since the mark before is that part's.

    On a device, marks are events in its stream of work: what lies between two of them is what the part
    cost the device, idle time included. A loader that keeps ahead of the device costs nothing. Events
    are read when the device has passed them, a few steps later, so that nobody waits.

    It stands still until `start`; marks then cost nothing.

    left_out_s: seconds, on the host's clock and since `start`, of pauses that count as no part of a step.
    """

    def __init__(self) -> None:
        self.left_out_s = 0.0
        self._paused_at: float | None = None
        self._make: Callable[[], Moment] | None = None
        self._running = False
        self._last: Moment | None = None
        self._laps: list[Lap] = []  # of the step at work
        self._steps: deque[list[Lap]] = deque()  # ended, not yet read

    def start(self, device: torch.device) -> None:
        """Forget everything, and begin the first part now."""
        self.stop()
        if device.type == "cpu":
            self._make = HostMoment
        else:
            self._make = partial(torch.get_device_module(device).Event, enable_timing=True)
        self.resume()

    def stop(self) -> None:
        """Forget all marks; later ones cost nothing."""
        self._make, self._running, self._last = None, False, None
        self.left_out_s, self._paused_at = 0.0, None
        self._laps, self._steps = [], deque()

    def mark(self, part: str) -> None:
        """The time since the last mark went into `part`."""
        if self._running:
            begin, end = self._last, self._now()
            self._laps.append((part, begin, end))
            self._last = end

    def pause(self) -> None:
        """Ignore marks until `resume`: the same code runs, but not as a part of a step."""
        self._running, self._paused_at = False, time.monotonic()

    def resume(self, part: str | None = None) -> None:
        """part: what the pause, from the mark before it, counts as; None leaves it out."""
        if self._make is None:
            return
        self._running = True
        if part is None:
            self._last = self._now()
            if self._paused_at is not None:
                self.left_out_s += time.monotonic() - self._paused_at
        else:
            self.mark(part)
        self._paused_at = None

    def end_step(self) -> None:
        """The marks since the last call were one optimizer step, over all of its micro-batches."""
        if self._laps:
            self._steps.append(self._laps)
            self._laps = []

    def read(self) -> dict[str, float]:
        """Seconds a step of each part: the mean over the steps, not read before, that the device is done
        with. Empty where there are none."""
        seconds: dict[str, float] = {}
        num_steps = 0
        # A device passes its events in order: with the last, all of a step are there.
        while self._steps and self._steps[0][-1][2].query():
            for part, begin, end in self._steps.popleft():
                seconds[part] = seconds.get(part, 0.0) + begin.elapsed_time(end) / 1e3
            num_steps += 1
        return {part: total / num_steps for part, total in seconds.items()}

    def _now(self) -> Moment:
        moment = self._make()
        moment.record()
        return moment
