"""One position of a consumer's stream, and what is drawn for the object that stands there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

# Keep the random streams of the decisions apart.
PASS, WITHIN, VIEWS, MIX, MEMBERS = 0, 1, 2, 3, 4


class Part(Protocol):
    """Objects of one shard that a consumer reads in a row."""

    @property
    def shard(self) -> int:
        """The index of the shard."""
        ...

    def size(self, shard_size: int) -> int:
        """The number of objects."""

    def ordinals(self, shard_size: int, seed: int, pass_index: int) -> np.ndarray:
        """The objects' places in the shard in the order of one pass, int [size]; one array for all who
        ask."""


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


def slots_of(
    parts: Iterator[tuple[int, Part]], shard_sizes: list[int], position: int, start: int
) -> Iterator[Slot]:
    """The slots from position `start` on, where `parts` (each with the index of its pass) begin at
    `position`."""
    for (pass_index, part), (_, next_part) in pairwise(parts):
        size = part.size(shard_sizes[part.shard])
        for rank in range(max(0, start - position), size):
            yield Slot(position + rank, pass_index, part, rank, next_part)
        position += size


def candidates(slot: Slot, shard_sizes: list[int], seed: int) -> Iterator[tuple[int, int]]:
    """Shard and ordinal of the object that stands at a slot, and then of those that take its place, in
    turn, where it is broken: the next of its part, and where that is all broken, of the other shards.

    What stands at a slot never depends on how the run came there.
    """
    order = slot.part.ordinals(shard_sizes[slot.part.shard], seed, slot.pass_index)
    for i in range(len(order)):
        yield slot.part.shard, int(order[(slot.rank + i) % len(order)])
    for further in range(1, len(shard_sizes)):
        shard = (slot.part.shard + further) % len(shard_sizes)
        for i in range(shard_sizes[shard]):
            yield shard, (slot.rank + i) % shard_sizes[shard]


def view_rng(seed: int, pass_index: int, shard: int, ordinal: int) -> np.random.Generator:
    """The source of randomness for choosing an object's views and augmenting them in one pass: the
    same whichever rank or worker reads it."""
    return np.random.default_rng([seed, VIEWS, pass_index, shard, ordinal])


def object_rng(seed: int, uid: str) -> np.random.Generator:
    """The source of randomness for an object that is measured: by its name, so that neither the split nor
    the objects beside it matter."""
    digest = hashlib.sha256(uid.encode()).digest()
    return np.random.default_rng([seed, VIEWS, int.from_bytes(digest[:8], "little")])
