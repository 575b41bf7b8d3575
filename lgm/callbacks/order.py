"""Order of callbacks: by their stage, not by their names or their order in a configuration.

A callback class states its `stage`; within one, callbacks keep the order of the configuration. Lightning
itself moves checkpoints behind all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from lightning.pytorch import Callback


class Stage(IntEnum):
    """When a callback's hooks run, relative to others'."""

    MEASURE = 0  # numbers that others show
    DEFAULT = 1  # also the EMA weights: what measures them comes later
    REPORT = 2  # shows what the others measured and wrote
    STOP = 3  # a stop lets nothing follow
    EVALUATE = 4  # what a stop cuts off of it is made up by the run that goes on
    AGREE = 5
    TIMING = 6  # it counts what all before it took
    BEST_CHECKPOINT = 7
    LAST_CHECKPOINT = 8  # it holds the best score so far


def ordered(callbacks: Iterable[Callback]) -> list[Callback]:
    """The callbacks by their stage, otherwise as given."""
    return sorted(callbacks, key=lambda callback: getattr(callback, "stage", Stage.DEFAULT))
