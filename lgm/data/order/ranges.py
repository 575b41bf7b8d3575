"""The rule of today: in each pass the shards are shuffled and laid end to end, and each consumer reads one
range of the objects that lie there, as long as everyone else's.

So consumers stay together: when each has read k objects, any two are in the same pass or in neighbouring
ones, and each object was read as often as any other, or once more. Where a consumer stands at a position is a
formula, not a walk. A shard is read by several consumers only where ranges meet: neighbours, which share a
machine as a rule. Every second consumer reads its range from the end, so that neighbours read the shard
between them at the same time and fetch it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np

from lgm.data.order.slots import MEMBERS, PASS, WITHIN, Slot, slots_of


@dataclass(frozen=True)
class Piece:
    """Objects `start` to `stop` (exclusive) of a shard as the `shuffle`-th pass shuffles it."""

    shard: int
    start: int
    stop: int
    shuffle: int

    def size(self, shard_size: int) -> int:
        """The number of objects."""
        return self.stop - self.start

    def ordinals(self, shard_size: int, seed: int, pass_index: int) -> np.ndarray:
        """The objects' indices in the shard in the order of one pass, int [size]."""
        return _ordinals(self, shard_size, seed, pass_index)


def slots(
    shard_sizes: list[int], num_consumers: int, consumer: int, seed: int, start: int, repeats: int
) -> Iterator[Slot]:
    """A consumer's stream from position `start` on, without visiting what lies before its pass."""
    num_objects = sum(shard_sizes)
    # The last pass p with num_before(p) <= start // repeats, solved for p.
    first_pass = ((start // repeats + 1) * num_consumers - consumer - 1) // num_objects
    position = repeats * num_before(first_pass, num_objects, num_consumers, consumer)
    turns = _turns(shard_sizes, num_consumers, consumer, seed, first_pass, repeats)
    yield from slots_of(turns, shard_sizes, position, start)


def num_before(pass_index: int, num_objects: int, num_consumers: int, consumer: int) -> int:
    """How many objects a consumer reads before a pass: the pass's fair share, rounded so that all consumers'
    numbers add up (Hermite's identity: the sum over c of floor(x + c / C) is floor(C x))."""
    return (pass_index * num_objects + consumer) // num_consumers


def range_of(pass_index: int, num_objects: int, num_consumers: int, consumer: int) -> tuple[int, int]:
    """Start and stop of a consumer's range among the objects of a pass."""
    start, stop = (
        _sum_before(pass_index + 1, num_objects, num_consumers, c)
        - _sum_before(pass_index, num_objects, num_consumers, c)
        for c in (consumer, consumer + 1)
    )
    return start, stop


def _sum_before(pass_index: int, num_objects: int, num_consumers: int, consumer: int) -> int:
    """`num_before` added up over the consumers below this one."""
    each, rest = divmod(pass_index * num_objects, num_consumers)
    return consumer * each + max(0, consumer + rest - num_consumers)


def num_downloads(shard_sizes: list[int], num_consumers: int, num_machines: int, seed: int) -> int:
    """How many shards all machines together fetch in a pass where each fetches a shard once; consumers lie on
    the machines one after the other, equally many on each."""
    num_objects, ends = sum(shard_sizes), _layout(shard_sizes, seed, 0)[1]
    total = 0
    for machine in range(num_machines):
        low, high = (num_consumers * m // num_machines for m in (machine, machine + 1))
        start = range_of(0, num_objects, num_consumers, low)[0]
        stop = range_of(0, num_objects, num_consumers, high - 1)[1]
        first, last = np.searchsorted(ends, (start, stop - 1), side="right")
        total += int(last - first) + 1
    return total


def pieces(
    shard_sizes: list[int], num_consumers: int, consumer: int, seed: int, pass_index: int
) -> list[Piece]:
    """What one consumer reads in one pass, in order."""
    start, stop = range_of(pass_index, sum(shard_sizes), num_consumers, consumer)
    order, ends = _layout(shard_sizes, seed, pass_index)
    first, last = np.searchsorted(ends, (start, stop - 1), side="right")
    found = []
    for index in range(int(first), int(last) + 1):
        shard = int(order[index])
        begin = int(ends[index]) - shard_sizes[shard]
        piece = Piece(shard, max(start - begin, 0), min(stop, int(ends[index])) - begin, pass_index)
        if piece.stop > piece.start:
            found.append(piece)
    return found[::-1] if consumer % 2 else found


def _layout(shard_sizes: list[int], seed: int, pass_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The shards in the order of a pass, and where each ends among its objects."""
    order = np.random.default_rng([seed, PASS, pass_index]).permutation(len(shard_sizes))
    return order, np.cumsum(np.asarray(shard_sizes, dtype=np.int64)[order])


def _turns(
    shard_sizes: list[int], num_consumers: int, consumer: int, seed: int, first_pass: int, repeats: int
) -> Iterator[tuple[int, Piece]]:
    for pass_index in count(first_pass):
        for piece in pieces(shard_sizes, num_consumers, consumer, seed, pass_index):
            for repeat in range(repeats):
                yield pass_index * repeats + repeat, piece


@lru_cache(maxsize=16)  # asked for at each slot of a piece
def _ordinals(piece: Piece, shard_size: int, seed: int, pass_index: int) -> np.ndarray:
    size = piece.stop - piece.start
    # Repeats are passes of their own and read the same objects, in another order.
    order = np.random.default_rng([seed, WITHIN, pass_index, piece.shard, piece.start]).permutation(size)
    if size < shard_size:
        members = np.random.default_rng([seed, MEMBERS, piece.shuffle, piece.shard]).permutation(shard_size)
        order = members[piece.start : piece.stop][order]
    order.setflags(write=False)
    return order
