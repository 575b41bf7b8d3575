"""Tolerance of broken objects: how many of them a run skips before it stops."""

import logging

import numpy as np

from lgm.data.schema.sample import BrokenSample

log = logging.getLogger(__name__)

_GRACE = 100  # objects; with fewer seen, a fraction of broken ones says little


def most_broken(max_fraction: float, num_seen: int, num_objects: int) -> float:
    """Up to how many broken objects, of `num_seen` in a set of `num_objects`, a run goes on.

    Where all are seen it is the fraction itself, but one: a set of ten can lose one to any fraction above
    zero. Before that a large set stops where so many broken among so few are no chance.
    """
    if max_fraction == 0:
        return 0
    # Three standard deviations of grace: chance alone must stop none of many processes.
    expected = max_fraction * max(num_seen, _GRACE)
    return min(max(1, max_fraction * num_objects + 1e-6), expected + 3 * expected**0.5)


class BrokenCounter:
    """Counts the distinct broken objects that one loader process met, names each once, and stops the
    run at too many.

    An object that is met again, in the next pass or in the place of another, is no new evidence; but where
    views are drawn, one that was good before may show its broken one.
    """

    def __init__(self, max_fraction: float, num_objects: int) -> None:
        self.max_fraction = max_fraction
        self.seen = 0
        self.broken = 0
        self._num_objects = num_objects
        self._was_seen = np.zeros(num_objects, dtype=bool)  # a byte an object: a megabyte a million
        self._was_broken = np.zeros(num_objects, dtype=bool)

    def good(self, number: int) -> None:
        """The `number`-th object of the set is fine."""
        self.seen += not self._was_seen[number]
        self._was_seen[number] = True

    def bad(self, number: int, error: BrokenSample) -> None:
        """The `number`-th object of the set is broken; raises ValueError where that makes too many."""
        if self._was_broken[number]:
            return
        self.good(number)
        self._was_broken[number] = True
        self.broken += 1
        log.warning("skipped a broken sample: %s", error)
        if self.broken > most_broken(self.max_fraction, self.seen, self._num_objects):
            raise ValueError(
                f"{self.broken} of {self.seen} objects are broken, more than "
                f"data.max_broken_fraction={self.max_fraction} allows; the last: {error}"
            )
