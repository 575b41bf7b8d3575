"""Another number of readers in the middle of a pass: what is left of it is dealt to the new ones.

The order of samples depends on how many processes read (`lgm.data.order`). Where a run goes on with more or
fewer, the passes that the former readers had begun are read to their end first, in equal runs, and the new
order begins with the first pass that nobody has begun. So no object of a pass is left out, and none comes
twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, takewhile

import numpy as np

from lgm.data.order import RULES, Part, Slot
from lgm.data.sources.base import Source

_MOST = 2**53


@dataclass(frozen=True)
class Leg:
    """What one number of readers has read: `batches` of `batch_size` objects on each of `world_size` ranks,
    made by `num_workers` loader processes each (0 is the rank itself), by a rule of
    `lgm.data.order.RULES`."""

    world_size: int
    num_workers: int
    batch_size: int
    order_version: int
    batches: int = 0

    @property
    def num_consumers(self) -> int:
        return self.world_size * max(1, self.num_workers)

    def num_read(self, consumer: int) -> int:
        """Objects that a consumer has read: a rank asks its workers in turn."""
        num_workers = max(1, self.num_workers)
        return len(range(consumer % num_workers, self.batches, num_workers)) * self.batch_size


def legs_of(values: object) -> list[Leg]:
    """Legs of a checkpoint, which may be anyone's; raises ValueError where they are of another form."""
    if not isinstance(values, list):
        raise ValueError(f"its legs are {type(values).__name__}, not a list")
    legs = []
    for entry in values:
        is_counts = isinstance(entry, list) and len(entry) == 5 and all(type(x) is int for x in entry)
        if not is_counts or not all(0 <= x < _MOST for x in entry) or not min(entry[0], entry[2]):
            raise ValueError("a leg of its order of samples does not hold five counts")
        if entry[3] not in RULES:
            raise ValueError(f"a leg has order_version={entry[3]}, a rule that this program does not know")
        legs.append(Leg(*entry))
    return legs


class History:
    """How far the training data is read, over all numbers of readers of a run; part of its checkpoints."""

    def __init__(self) -> None:
        self.former: list[Leg] = []  # of other numbers of readers
        self._before: int | None = None  # batches of the present ones before this process
        self._from_step: int | None = None

    def resume(self, legs: list[Leg]) -> None:
        """Go on with the readers of the last leg. Older checkpoints know no legs: all counts from step 0."""
        if legs:
            self.former, self._before = legs[:-1], legs[-1].batches

    def hand_over(self, legs: list[Leg]) -> None:
        """Go on with other readers after these legs."""
        self.former, self._before = legs, 0

    def begin(self, step: int) -> None:
        """This process trains from here on; once."""
        if self._from_step is None:
            self._from_step = step

    def batches(self, step: int, accumulation: int) -> int:
        """What each rank has read as one of the present readers, after `step` steps."""
        if self._before is None:
            return step * accumulation
        return self._before + (0 if self._from_step is None else step - self._from_step) * accumulation


class Leftovers:
    """Slots of passes that were begun and not ended, in the order in which their readers stood; and the
    first pass that nobody has begun."""

    def __init__(self, slots: Sequence[Slot] = (), first_pass: int = 0) -> None:
        index_of: dict[Part, int] = {}
        for slot in slots:
            index_of.setdefault(slot.part, len(index_of))
        self.first_pass = first_pass
        # A million slots as arrays take 16 MB, as objects 200.
        self._parts = list(index_of)
        rows = [(index_of[slot.part], slot.pass_index, slot.rank) for slot in slots]
        unsorted = np.array(rows, dtype=np.int64).reshape(-1, 3)
        # Readers that were a pass behind others first.
        self._slots = unsorted[np.argsort(unsorted[:, 1], kind="stable")]

    def slots(
        self, source: Source, num_consumers: int, consumer: int, seed: int, start: int, version: int
    ) -> Iterator[Slot]:
        """A consumer's endless stream from position `start` on: its run of these, then the passes after
        them."""
        run = self._run(num_consumers, consumer)
        for position, (part_index, pass_index, rank) in enumerate(run[start:].tolist(), start):
            part = self._parts[part_index]
            yield Slot(position, pass_index, part, rank, part)
        begin = _begin_of_pass(source, self.first_pass, num_consumers, consumer, seed, version)
        for slot in source.slots(num_consumers, consumer, seed, begin + max(0, start - len(run)), version):
            yield replace(slot, position=slot.position - begin + len(run))

    def _run(self, num_consumers: int, consumer: int) -> np.ndarray:
        """What a consumer reads of these, pass after pass: part, pass and rank of each, int [n, 3]."""
        bounds = np.searchsorted(self._slots[:, 1], np.unique(self._slots[:, 1]))
        of_passes = np.split(self._slots, bounds[1:])
        low, high = ([len(of) * c // num_consumers for of in of_passes] for c in (consumer, consumer + 1))
        return np.concatenate([of[a:b] for of, a, b in zip(of_passes, low, high, strict=True)])


def leftovers(source: Source, legs: Sequence[Leg], seed: int) -> Leftovers:
    """What several legs, one after the other, have left. Takes a microsecond or two an object of a pass.

    source: one whose consumers read pass after pass; no mixture, in which each set has passes of its own.
    """
    left = Leftovers()
    for leg in legs:
        if not leg.batches:
            continue
        begun: list[Iterator[Slot]] = []
        last_pass = left.first_pass - 1
        for consumer in range(leg.num_consumers):
            num_read = leg.num_read(consumer)
            stream = left.slots(
                source, leg.num_consumers, consumer, seed, max(0, num_read - 1), leg.order_version
            )
            if num_read:
                last_pass = max(last_pass, next(stream).pass_index)
            begun.append(stream)
        # Readers that are a pass behind others have more to read.
        rest = [takewhile(lambda slot: slot.pass_index <= last_pass, stream) for stream in begun]  # noqa: B023
        left = Leftovers(list(chain.from_iterable(rest)), last_pass + 1)
    return left


def _begin_of_pass(
    source: Source, pass_index: int, num_consumers: int, consumer: int, seed: int, version: int
) -> int:
    """The position at which a consumer's pass begins: passes only ever grow along its stream."""

    def pass_at(position: int) -> int:
        return next(islice(source.slots(num_consumers, consumer, seed, position, version), 1)).pass_index

    if pass_index == 0:
        return 0
    high = 1
    while pass_at(high) < pass_index:
        high *= 2
    low = high // 2
    while low < high:
        middle = (low + high) // 2
        if pass_at(middle) < pass_index:
            low = middle + 1
        else:
            high = middle
    return low
