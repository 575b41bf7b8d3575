"""Endless and finite streams of batches, made in the loader's workers."""

import logging
from collections.abc import Iterator

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from lgm.data.collate import Item, collate, make_item
from lgm.data.order import Part, Slot, parts, slots, view_rng, within
from lgm.data.sample import BrokenSample
from lgm.data.source import PosedObject, Source
from lgm.data.views import ViewSampler
from lgm.types import Batch

log = logging.getLogger(__name__)

_GRACE = 100  # objects; with fewer seen, a fraction of broken ones says little


class BrokenCounter:
    """Counts broken samples of one worker, names each once, and stops the run at too many."""

    def __init__(self, max_fraction: float) -> None:
        self.max_fraction = max_fraction
        self.seen = 0
        self.broken = 0
        self._named: set[str] = set()

    def good(self) -> None:
        self.seen += 1

    def bad(self, error: BrokenSample) -> None:
        self.seen += 1
        self.broken += 1
        if str(error) not in self._named:
            self._named.add(str(error))
            log.warning("skipped a broken sample: %s", error)
        # Three standard deviations of grace: chance alone must stop none of many workers.
        expected = self.max_fraction * max(self.seen, _GRACE)
        if self.broken > expected + 3 * expected**0.5:
            raise ValueError(
                f"{self.broken} of {self.seen} samples are broken, more than "
                f"data.max_broken_fraction={self.max_fraction} allows; the last: {error}"
            )


class TrainStream(IterableDataset):
    """An endless stream of whole batches; its order is `lgm.data.order`'s.

    A broken sample's place is taken by the next good one of its part, so that what stands at a
    position never depends on how the run came there.

    start_batch: how many batches this rank has already trained on.
    """

    def __init__(
        self,
        source: Source,
        sampler: ViewSampler,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
        max_broken_fraction: float = 0.01,
    ) -> None:
        self.source = source
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start_batch = start_batch
        self.max_broken_fraction = max_broken_fraction

    def __iter__(self) -> Iterator[Batch]:
        worker, num_workers = _worker()
        # The loader asks its workers in turn, from 0; batch m of a run is worker (m mod W)'s.
        worker = (worker + self.start_batch) % num_workers
        done = len(range(worker, self.start_batch, num_workers))
        consumer = self.rank * num_workers + worker
        num_consumers = self.world_size * num_workers
        stream = slots(self.source.shard_sizes, num_consumers, consumer, self.seed, done * self.batch_size)
        items: list[Item] = []
        for item in self._items(stream):
            items.append(item)
            if len(items) == self.batch_size:
                yield collate(items)
                items = []

    def _items(self, stream: Iterator[Slot]) -> Iterator[Item]:
        counter = BrokenCounter(self.max_broken_fraction)
        loaded: Part | None = None
        ordered: int | None = None
        objects: list[PosedObject | BrokenSample] = []
        order = np.zeros(0, dtype=int)
        for slot in stream:
            if loaded != slot.part:
                loaded, ordered = slot.part, None
                objects = self.source.read(slot.part)
            if ordered != slot.pass_index:  # a set of one part is read once for all passes
                ordered = slot.pass_index
                order = within(slot.part, len(objects), self.seed, slot.pass_index)
            yield self._first_good(slot, objects, np.roll(order, -slot.rank), counter)

    def _first_good(
        self,
        slot: Slot,
        objects: list[PosedObject | BrokenSample],
        order: np.ndarray,
        counter: BrokenCounter,
    ) -> Item:
        error = BrokenSample("an empty shard")
        for i in order.tolist():
            ordinal = slot.part.index + i * slot.part.count
            rng = view_rng(self.seed, slot.pass_index, slot.part.shard, ordinal)
            try:
                item = make_item(objects[i], self.sampler, rng)
            except BrokenSample as broken:
                error = broken
                counter.bad(broken)
            else:
                counter.good()
                return item
        raise ValueError(f"no object of a whole shard can be read; the last: {error}")


class EvalStream(IterableDataset):
    """Every object once, over all ranks and workers, in the order they lie in.

    max_objects: only the first so many of the whole set.
    """

    def __init__(
        self,
        source: Source,
        sampler: ViewSampler,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        max_objects: int | None = None,
        max_broken_fraction: float = 0.01,
    ) -> None:
        self.source = source
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.max_objects = max_objects
        self.max_broken_fraction = max_broken_fraction

    def __iter__(self) -> Iterator[Batch]:
        worker, num_workers = _worker()
        num_consumers = self.world_size * num_workers
        consumer = self.rank * num_workers + worker
        counter = BrokenCounter(self.max_broken_fraction)
        items: list[Item] = []
        for item in self._items(consumer, num_consumers, counter):
            items.append(item)
            if len(items) == self.batch_size:
                yield collate(items)
                items = []
        if items:
            yield collate(items)

    def _items(self, consumer: int, num_consumers: int, counter: BrokenCounter) -> Iterator[Item]:
        sizes = self.source.shard_sizes
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        limit = self.max_objects if self.max_objects is not None else sum(sizes)
        for part in parts(sizes, num_consumers)[consumer::num_consumers]:
            numbers = range(firsts[part.shard] + part.index, firsts[part.shard + 1], part.count)
            if numbers[0] >= limit:
                continue
            for number, candidate in zip(numbers, self.source.read(part), strict=True):
                if number >= limit:
                    break
                try:
                    item = make_item(candidate, self.sampler, view_rng(0, 0, 0, int(number)))
                except BrokenSample as error:
                    counter.bad(error)
                else:
                    counter.good()
                    yield item


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
