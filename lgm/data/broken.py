"""How many broken objects a run puts up with."""

import logging

import numpy as np

from lgm.data.sample import BrokenSample

log = logging.getLogger(__name__)

_GRACE = 100  # objects; with fewer seen, a fraction of broken ones says little


class BrokenCounter:
    """Counts the distinct broken objects that one loader process met, names each once, and stops the
    run at too many.

    An object that is met again, in the next pass or in the place of another, is no new evidence.
    """

    def __init__(self, max_fraction: float, num_objects: int) -> None:
        self.max_fraction = max_fraction
        self.seen = 0
        self.broken = 0
        self._was_seen = np.zeros(num_objects, dtype=bool)  # a byte an object: a megabyte a million

    def good(self, number: int) -> None:
        """The `number`-th object of the set is fine."""
        self.seen += not self._was_seen[number]
        self._was_seen[number] = True

    def bad(self, number: int, error: BrokenSample) -> None:
        """The `number`-th object of the set is broken; raises ValueError where that makes too many."""
        if self._was_seen[number]:
            return
        self._was_seen[number] = True
        self.seen += 1
        self.broken += 1
        log.warning("skipped a broken sample: %s", error)
        # Three standard deviations of grace: chance alone must stop none of many processes.
        expected = self.max_fraction * max(self.seen, _GRACE)
        if self.broken > expected + 3 * expected**0.5:
            raise ValueError(
                f"{self.broken} of {self.seen} objects are broken, more than "
                f"data.max_broken_fraction={self.max_fraction} allows; the last: {error}"
            )
