"""The first rule, which runs that began under it go on with: in each pass the shards are shuffled and dealt
to the consumers like cards.

With fewer shards than consumers, a shard is dealt in several parts (every k-th object). Consumers with fewer
cards in a pass are ahead of the others from there on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np

from lgm.data.order.slots import PASS, WITHIN, Slot, slots_of


@dataclass(frozen=True)
class Card:
    """Objects `index`, `index + count`, `index + 2 count`, … of a shard."""

    shard: int
    index: int
    count: int

    def size(self, shard_size: int) -> int:
        """The number of objects."""
        return len(range(self.index, shard_size, self.count))

    def ordinals(self, shard_size: int, seed: int, pass_index: int) -> np.ndarray:
        """The objects' indices in the shard in the order of one pass, int [size]."""
        return _ordinals(self, shard_size, seed, pass_index)


def parts(shard_sizes: list[int], num_consumers: int) -> list[Card]:
    """All objects, cut into at least one non-empty part a consumer where there are that many."""
    num_objects = sum(shard_sizes)
    each = max(1, -(-num_consumers // max(1, len(shard_sizes))))
    cut = [Card(s, i, each) for s in range(len(shard_sizes)) for i in range(each)]
    cut = [part for part in cut if part.size(shard_sizes[part.shard]) > 0]
    if len(cut) < num_consumers <= num_objects:
        # Shards of very unequal sizes: one part an object always suffices.
        cut = [Card(s, i, size) for s, size in enumerate(shard_sizes) for i in range(size)]
    return cut


def shares(
    shard_sizes: list[int], num_consumers: int, consumer: int, seed: int, pass_index: int
) -> list[Card]:
    """The parts that one consumer reads in one pass, in order."""
    cut = parts(shard_sizes, num_consumers)
    order = np.random.default_rng([seed, PASS, pass_index]).permutation(len(cut))
    return [cut[i] for i in order[consumer::num_consumers]]


def slots(
    shard_sizes: list[int], num_consumers: int, consumer: int, seed: int, start: int, repeats: int
) -> Iterator[Slot]:
    """A consumer's stream from position `start` on; the passes before it are walked, their objects are
    not."""
    turns = _turns(shard_sizes, num_consumers, consumer, seed, repeats)
    yield from slots_of(turns, shard_sizes, 0, start)


def _turns(
    shard_sizes: list[int], num_consumers: int, consumer: int, seed: int, repeats: int
) -> Iterator[tuple[int, Card]]:
    for pass_index in count():
        for part in shares(shard_sizes, num_consumers, consumer, seed, pass_index):
            for repeat in range(repeats):
                yield pass_index * repeats + repeat, part


@lru_cache(maxsize=16)  # asked for at each slot of a part
def _ordinals(part: Card, shard_size: int, seed: int, pass_index: int) -> np.ndarray:
    rng = np.random.default_rng([seed, WITHIN, pass_index, part.shard, part.index])
    order = part.index + rng.permutation(part.size(shard_size)) * part.count
    order.setflags(write=False)
    return order
