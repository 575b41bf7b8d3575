"""Order of training samples: a pure function of (seed, rank, worker, position). The split by node and worker.

Nothing here remembers anything, so a training that resumes at step k computes where it stood
instead of replaying k steps, and no random state need be stored. There is no shuffle buffer: objects lie
within reach in their shard, so each pass is a full permutation, not an approximate shuffle.

*Consumers* are the loader workers of all ranks together, under Slurm, torchrun or one process alike. In
each pass over the data the shards are shuffled and dealt to the consumers like cards; a consumer reads its
shards one after the other, each shuffled in itself. With fewer shards than consumers, a shard is dealt in
several parts (every k-th object). Consumers go on to their next pass on their own: a stream never ends, so
ranks with unequal shards never wait for each other.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, pairwise

import numpy as np

# Second entry of every seed sequence below, so that no two decisions share a random stream.
_PASS, _WITHIN, _VIEWS, _MIX = 0, 1, 2, 3  # keep the random streams of the decisions apart


@dataclass(frozen=True)
class Part:
    """Objects `index`, `index + count`, `index + 2 count`, … of a shard."""

    shard: int
    index: int
    count: int

    def size(self, shard_size: int) -> int:
        """Number of objects, of a shard of `shard_size` objects."""
        return len(range(self.index, shard_size, self.count))


@dataclass(frozen=True)
class Slot:
    """One place in a consumer's endless stream: the `rank`-th of a shuffled part.

    next_part: what the consumer reads after this part.
    """

    position: int
    pass_index: int
    part: Part
    rank: int
    next_part: Part


def parts(shard_sizes: list[int], num_consumers: int) -> list[Part]:
    """All objects, cut into at least one non-empty part a consumer where there are that many."""
    num_objects = sum(shard_sizes)
    each = max(1, -(-num_consumers // max(1, len(shard_sizes))))
    cut = [Part(s, i, each) for s in range(len(shard_sizes)) for i in range(each)]
    cut = [part for part in cut if part.size(shard_sizes[part.shard]) > 0]
    if len(cut) < num_consumers <= num_objects:
        # Shards of very unequal sizes: one part an object always suffices.
        cut = [Part(s, i, size) for s, size in enumerate(shard_sizes) for i in range(size)]
    return cut


def shares(
    shard_sizes: list[int], num_consumers: int, consumer: int, seed: int, pass_index: int
) -> list[Part]:
    """The parts that one consumer reads in one pass, in order."""
    cut = parts(shard_sizes, num_consumers)
    # All consumers draw the same permutation; each takes every num_consumers-th part of it.
    order = np.random.default_rng([seed, _PASS, pass_index]).permutation(len(cut))
    return [cut[i] for i in order[consumer::num_consumers]]


def slots(
    shard_sizes: list[int], num_consumers: int, consumer: int, seed: int, start: int = 0, repeats: int = 1
) -> Iterator[Slot]:
    """A consumer's stream from position `start` on, without visiting what lies before it.

    repeats: how often a part is read, in another order each time, before the consumer goes on to its next.
    """
    if sum(shard_sizes) < num_consumers:
        raise ValueError(
            f"{sum(shard_sizes)} objects are too few for {num_consumers} loader processes "
            f"(ranks × data.num_workers); lower data.num_workers"
        )
    position = 0
    turns = _turns(shard_sizes, num_consumers, consumer, seed, repeats)
    for (pass_index, part), (_, next_part) in pairwise(turns):
        size = part.size(shard_sizes[part.shard])
        # A resume skips whole parts by their size alone.
        for rank in range(max(0, start - position), size):
            yield Slot(position + rank, pass_index, part, rank, next_part)
        position += size


def _turns(
    shard_sizes: list[int], num_consumers: int, consumer: int, seed: int, repeats: int
) -> Iterator[tuple[int, Part]]:
    """Pass and part, endlessly; a part repeated counts as passes of its own, so that its order differs."""
    for pass_index in count():
        for part in shares(shard_sizes, num_consumers, consumer, seed, pass_index):
            for repeat in range(repeats):
                yield pass_index * repeats + repeat, part


@lru_cache(maxsize=16)  # asked for at each slot of a part
def within(part: Part, size: int, seed: int, pass_index: int) -> np.ndarray:
    """The order of the `size` objects inside a part in one pass."""
    rng = np.random.default_rng([seed, _WITHIN, pass_index, part.shard, part.index])
    # Cached: a permutation of a shard of a thousand objects is not drawn for each of them.
    order = rng.permutation(size)
    order.setflags(write=False)  # one array for all who ask
    return order


def candidates(slot: Slot, shard_sizes: list[int], seed: int) -> Iterator[tuple[int, int]]:
    """Shard and ordinal of the object that stands at a slot, and then of those that take its place, in
    turn, where it is broken: the next of its part, and where that is all broken, of the other shards.

    What stands at a slot never depends on how the run came there.
    """
    size = slot.part.size(shard_sizes[slot.part.shard])
    order = within(slot.part, size, seed, slot.pass_index)
    for i in range(size):
        yield slot.part.shard, slot.part.index + int(order[(slot.rank + i) % size]) * slot.part.count
    for further in range(1, len(shard_sizes)):
        shard = (slot.part.shard + further) % len(shard_sizes)
        for i in range(shard_sizes[shard]):
            yield shard, (slot.rank + i) % shard_sizes[shard]


def view_rng(seed: int, pass_index: int, shard: int, ordinal: int) -> np.random.Generator:
    """The seeded generator of an object's views and augmentation in one pass: the same in any rank or worker.

    Not a worker seed: what is drawn for an object must not depend on the number of workers.
    """
    return np.random.default_rng([seed, _VIEWS, pass_index, shard, ordinal])


def object_rng(seed: int, uid: str) -> np.random.Generator:
    """The seeded generator of an object that is measured, by its name: neither the split nor its
    neighbours matter.
    """
    digest = hashlib.sha256(uid.encode()).digest()
    return np.random.default_rng([seed, _VIEWS, int.from_bytes(digest[:8], "little")])


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
        rng = np.random.default_rng([self._seed, _MIX, self._consumer, block])
        return rng.permutation(np.repeat(np.arange(len(self.counts)), self.counts))
