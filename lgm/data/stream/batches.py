"""Streams of batches, endless for training and finite for evaluation, made in the loader's workers."""

from collections.abc import Iterator
from itertools import groupby

from torch.utils.data import IterableDataset, get_worker_info

from lgm.data.order import ORDER_VERSION, Part, Slot, candidates, object_rng, view_rng
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.base import Source
from lgm.data.sources.broken import BrokenCounter
from lgm.data.stream.collate import Item, make_item
from lgm.data.stream.handover import Leftovers
from lgm.data.stream.undrawn import Undrawn, collated
from lgm.data.views import ViewSampler
from lgm.types import Batch


class TrainStream(IterableDataset):
    """An endless stream of whole batches, in the order of `lgm.data.order`.

    start_batch: how many batches this rank has already trained on.
    order_version: by which rule (`lgm.data.order.RULES`).
    left: what former numbers of readers have left of passes, read first (`lgm.data.stream.handover`).
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
        order_version: int = ORDER_VERSION,
        left: Leftovers | None = None,
    ) -> None:
        self.source = source
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start_batch = start_batch
        self.max_broken_fraction = max_broken_fraction
        self.order_version = order_version
        self.left = left or Leftovers()

    def __iter__(self) -> Iterator[Batch | Undrawn]:
        return self.batches(*_worker())

    def batches(self, worker: int, num_workers: int) -> Iterator[Batch | Undrawn]:
        """The batches of one of `num_workers` loader processes."""
        # The loader asks its workers in turn, from 0; batch m of a run is worker (m mod W)'s.
        # After a resume the loader starts at worker 0 again: workers swap roles, so that batches go on in
        # order.
        worker = (worker + self.start_batch) % num_workers
        done = len(range(worker, self.start_batch, num_workers))
        consumer = self.rank * num_workers + worker
        num_consumers = self.world_size * num_workers
        # An exact resume: the consumer's own position, computed from the number of batches done.
        start = done * self.batch_size
        stream = self.left.slots(self.source, num_consumers, consumer, self.seed, start, self.order_version)
        items: list[Item] = []
        for item in self._items(stream):
            items.append(item)
            if len(items) == self.batch_size:
                yield collated(items)
                items = []

    def _items(self, stream: Iterator[Slot]) -> Iterator[Item]:
        counter = BrokenCounter(self.max_broken_fraction, self.source.num_objects)
        in_hand: Part | None = None
        for slot in stream:
            if slot.part != in_hand:
                in_hand = slot.part
                # The next shard is downloaded while this one is read.
                self.source.prefetch(slot.next_part.shard)
            yield self._first_good(slot, counter)

    def _first_good(self, slot: Slot, counter: BrokenCounter) -> Item:
        """The slot's object, or the next readable candidate in its place: a broken object leaves no gap in
        a batch.
        """
        error = BrokenSample("an empty data set")
        for shard, ordinal in candidates(slot, self.source.shard_sizes, self.seed):
            number = self.source.first(shard) + ordinal
            rng = view_rng(self.seed, slot.pass_index, shard, ordinal)
            try:
                item = make_item(self.source.load(shard, ordinal), self.sampler, rng)
            except BrokenSample as broken:
                error = broken
                counter.bad(number, broken)
            else:
                counter.good(number)
                return item
        raise ValueError(f"no object can be read; the last: {error}")


class EvalStream(IterableDataset):
    """Every object once, over all ranks and workers, each with neighbours in the order they lie in.

    A batch ends early where the next object has other numbers of views or another image size.

    max_objects: only the first so many of the whole set.
    seed: what is drawn for an object comes from it and from the object's name alone: the same in any
        split, and beside any other objects.
    with_geometry: the targets' depth and points of the surface too, where an object has them.
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
        seed: int = 0,
        with_geometry: bool = False,
    ) -> None:
        self.source = source
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.max_objects = max_objects
        self.max_broken_fraction = max_broken_fraction
        self.seed = seed
        self.with_geometry = with_geometry

    def __iter__(self) -> Iterator[Batch | Undrawn]:
        worker, num_workers = _worker()
        num_consumers = self.world_size * num_workers
        consumer = self.rank * num_workers + worker
        # A batch is a tensor: objects of another number of views or image size begin a new one.
        for _, alike in groupby(self._items(consumer, num_consumers), lambda item: item.shape):
            items: list[Item] = []
            for item in alike:
                items.append(item)
                if len(items) == self.batch_size:
                    yield collated(items, with_to_user=True)
                    items = []
            if items:
                yield collated(items, with_to_user=True)

    def _items(self, consumer: int, num_consumers: int) -> Iterator[Item]:
        counter = BrokenCounter(self.max_broken_fraction, self.source.num_objects)
        num_objects = self.source.num_objects
        if self.max_objects is not None:
            num_objects = min(num_objects, self.max_objects)
        in_hand: int | None = None
        # Neighbours stay together: a consumer reads few shards, and of these only its own objects.
        # Contiguous ranges that differ by one object at most.
        first, end = (num_objects * c // num_consumers for c in (consumer, consumer + 1))
        last_shard, _ = self.source.locate(end - 1)
        for number in range(first, end):
            shard, ordinal = self.source.locate(number)
            if shard != in_hand:
                in_hand = shard
                if shard < last_shard:
                    self.source.prefetch(shard + 1)
            try:
                posed = self.source.load(shard, ordinal)
                rng = object_rng(self.seed, posed.uid)
                item = make_item(posed, self.sampler, rng, self.with_geometry)
            except BrokenSample as error:
                counter.bad(number, error)
            else:
                counter.good(number)
                yield item


def _worker() -> tuple[int, int]:
    """Index and number of loader workers; (0, 1) in the main process."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
