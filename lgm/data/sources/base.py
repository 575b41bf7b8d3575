"""The interface of data sources, which the streams read: objects in shards, within reach by index."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from lgm.data.order import ORDER_VERSION, Slot, slots
from lgm.data.schema.sample import BrokenSample, CameraRecord
from lgm.data.sources.broken import most_broken
from lgm.data.sources.sketch import Sketch


class PosedObject(ABC):
    """One object: its name, its cameras, and images that are read and decoded on demand.

    scaled: whether `cameras` stand as near as the network wants them; else all distances change alike, so
        that the first input stands where the canonical frame has it.
    to_user: [4, 4], a similarity, from the frame of `cameras` to the one in which their owner gave them.
    """

    uid: str
    cameras: CameraRecord
    scaled: bool = False
    to_user: np.ndarray = np.eye(4)

    @abstractmethod
    def decode(self, view_ids: Sequence[int]) -> np.ndarray:
        """The named views, uint8 rgba [n, H, W, 4] with straight alpha; raises BrokenSample."""

    def images(self, view_ids: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Images, uint8 [P, H, W, 4], and which of them are the named views; raises BrokenSample."""
        return torch.from_numpy(self.decode(view_ids)), list(range(len(view_ids)))

    def sketch(self, view_ids: Sequence[int]) -> Sketch | None:
        """The named views as what the training device draws them from; None where `images` makes them."""
        return None

    def depths(self, view_ids: Sequence[int]) -> np.ndarray | None:
        """Distances along the cameras' axes, float32 [n, H, W], 0 for nothing; None where this object has
        none. Raises BrokenSample."""
        return None

    def surface(self) -> np.ndarray | None:
        """Points of the true surface in the frame of `to_user`, float32 [P, 3]; None where this object has
        none. Raises BrokenSample."""
        return None


class Source(ABC):
    """A collection of objects in shards of known sizes, each object within reach of its place.

    remedy: what a person can do about broken objects, the end of a sentence.
    """

    remedy = "; mend or repack the data set, or raise data.max_broken_fraction"

    @property
    @abstractmethod
    def shard_sizes(self) -> list[int]:
        """The number of objects in each shard."""

    @abstractmethod
    def load(self, shard: int, ordinal: int) -> PosedObject:
        """The `ordinal`-th object of a shard, without its images; raises BrokenSample."""

    def slots(
        self, num_consumers: int, consumer: int, seed: int, start: int = 0, version: int = ORDER_VERSION
    ) -> Iterator[Slot]:
        """A consumer's endless training stream from position `start` on, by a rule of `lgm.data.order.RULES`;
        ValueError at the first step where there are too few objects for so many consumers."""
        return slots(self.shard_sizes, num_consumers, consumer, seed, start, version=version)

    def first_objects(self, count: int) -> Source:
        """The first so many objects alone."""
        return FirstObjects(self, count)

    def on_device(self, device: torch.device) -> Source:
        """The source as a run reads it whose network is on that device."""
        return self

    def prefetch(self, shard: int) -> None:  # noqa: B027 (a source in memory has nothing to fetch)
        """This shard is read next: have it ready, without waiting for it."""

    def note_downloads(  # noqa: B027
        self, num_consumers: int, num_machines: int, seed: int
    ) -> None:
        """Log one line where so many loader processes on so many machines download more than the set in a
        pass, because it has fewer shards."""

    def check_files(self, num_readers: int) -> None:  # noqa: B027 (nor to check)
        """Raise ValueError or FileNotFoundError for what can be seen without reading objects.

        num_readers: loader processes on this machine.
        """

    def check(
        self,
        probe: int,
        max_broken_fraction: float = 0.0,
        num_readers: int = 1,
        examine: Callable[[PosedObject], None] = lambda item: None,
    ) -> list[PosedObject]:
        """Fail early: on the files, and on more broken ones among the first `probe` objects than a run puts
        up with; return the good ones of these.

        examine: raises BrokenSample for an object that the run can't use.
        """
        self.check_files(num_readers)
        good: list[PosedObject] = []
        broken: list[str] = []
        seen = min(probe, self.num_objects)
        for number in range(seen):
            try:
                item = self.load(*self.locate(number))
                item.decode([0])  # one view: says whether images can be read, and is quick
            except BrokenSample as error:
                broken.append(f"{error}{self.remedy}")
                continue
            try:
                examine(item)
            except BrokenSample as error:
                broken.append(str(error))
            else:
                good.append(item)
        if broken and (len(broken) > most_broken(max_broken_fraction, seen, self.num_objects) or not good):
            raise ValueError(broken[0])
        return good

    @property
    def num_objects(self) -> int:
        """The number of objects in all shards."""
        return sum(self.shard_sizes)

    def num_distinct(self, num_samples: int) -> int:
        """How many objects stand in the first so many samples of training."""
        return min(num_samples, self.num_objects)

    @property
    def content_hash(self) -> str:
        """16 digits that are the same for the same objects in the same order, as far as shards tell."""
        return hash_of(*self.shard_sizes)

    def locate(self, number: int) -> tuple[int, int]:
        """Shard and ordinal of the `number`-th object that evaluation reads."""
        return self.in_shards(number)

    def in_shards(self, number: int) -> tuple[int, int]:
        """Shard and ordinal of the `number`-th object in the order of the shards."""
        # Right, not left: empty shards, whose ends are equal, are passed over.
        shard = bisect_right(self._ends, number)
        return shard, number - self.first(shard)

    def first(self, shard: int) -> int:
        """The number of a shard's first object among all."""
        return self._ends[shard] - self.shard_sizes[shard]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.shard_sizes))


def hash_of(*parts: object) -> str:
    """16 digits of a SHA-256 over values as Python shows them."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class FirstObjects(Source):
    """The first `count` objects of another source, e.g. one to overfit."""

    def __init__(self, source: Source, count: int) -> None:
        if count < 1:
            raise ValueError(f"data.max_train_objects={count} must be at least 1")
        self._source = source
        sizes: list[int] = []
        for size in source.shard_sizes:
            # Negative beyond the count; left out below.
            sizes.append(min(size, count - sum(sizes)))
        self._sizes = [size for size in sizes if size > 0]

    @property
    def shard_sizes(self) -> list[int]:
        """Of the shards that hold the first objects, the last one cut off."""
        return self._sizes

    def load(self, shard: int, ordinal: int) -> PosedObject:
        return self._source.load(shard, ordinal)

    def on_device(self, device: torch.device) -> Source:
        return FirstObjects(self._source.on_device(device), self.num_objects)

    def prefetch(self, shard: int) -> None:
        self._source.prefetch(shard)

    def check_files(self, num_readers: int) -> None:
        self._source.check_files(num_readers)
