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
    ROLL_BACK = 3  # the EMA weights have taken their step, and nothing has measured or saved it
    STOP = 4  # a stop lets nothing follow
    EVALUATE = 5  # what a stop cuts off of it is made up by the run that goes on
    AGREE = 6
    TIMING = 7  # it counts what all before it took
    BEST_CHECKPOINT = 8
    LAST_CHECKPOINT = 9  # it holds the best score so far


def ordered(callbacks: Iterable[Callback]) -> list[Callback]:
    """The callbacks by their stage, otherwise as given."""
    return sorted(callbacks, key=lambda callback: getattr(callback, "stage", Stage.DEFAULT))
