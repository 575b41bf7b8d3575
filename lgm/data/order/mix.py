"""Which of several data sets each position of a stream is read from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from lgm.data.order.slots import MIX


class MixOrder:
    """Which of several sets each position of a consumer's stream is read from, by their weights.

    Positions are dealt in blocks: in each, every set stands as often as its weight says, shuffled.
    So the shares are exact, and what lies before a position is counted, not replayed.

    shares: positive, they add up to 1.
    """

    BLOCK = 1000

    def __init__(self, shares: Sequence[float], seed: int, consumer: int) -> None:
        exact = np.asarray(shares) * self.BLOCK
        self.counts = np.floor(exact).astype(int)
        # The largest remainders get what rounding left over.
        for index in np.argsort(self.counts - exact, kind="stable")[: self.BLOCK - self.counts.sum()]:
            self.counts[index] += 1
        self._seed, self._consumer = seed, consumer

    def before(self, position: int) -> np.ndarray:
        """How many of the positions before this one are each set's."""
        block, within_block = divmod(position, self.BLOCK)
        partial = self._block(block)[:within_block]
        return block * self.counts + np.bincount(partial, minlength=len(self.counts))

    def sets(self, start: int = 0) -> Iterator[int]:
        """The sets at positions `start`, `start + 1`, …"""
        first, within_block = divmod(start, self.BLOCK)
        yield from self._block(first)[within_block:].tolist()
        for block in count(first + 1):
            yield from self._block(block).tolist()

    def _block(self, block: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, MIX, self._consumer, block])
        return rng.permutation(np.repeat(np.arange(len(self.counts)), self.counts))
