"""Where objects come from: the interface that the streams read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from lgm.data.order import Part
from lgm.data.sample import BrokenSample, CameraRecord


class PosedObject(ABC):
    """One object: its name, its cameras, and pictures that are decoded on demand."""

    uid: str
    cameras: CameraRecord

    @abstractmethod
    def decode(self, view_ids: Sequence[int]) -> np.ndarray:
        """The named views, uint8 rgba [n, H, W, 4] with straight alpha; raises BrokenSample."""


class Source(ABC):
    """A collection of objects in shards of known sizes."""

    @property
    @abstractmethod
    def shard_sizes(self) -> list[int]:
        """The number of objects in each shard."""

    @abstractmethod
    def read(self, part: Part) -> list[PosedObject | BrokenSample]:
        """The objects of one part, in the order they lie in; what is broken stands as its error."""

    @abstractmethod
    def check(self, probe: int, max_broken_fraction: float = 0.0) -> list[PosedObject]:
        """Fail early: raise ValueError or FileNotFoundError for what can be seen without reading
        everything, and for too many broken ones among the first `probe` objects; return the good
        ones of these."""

    @property
    def num_objects(self) -> int:
        return sum(self.shard_sizes)


class FirstObjects(Source):
    """The first `count` objects of another source, e.g. one to overfit."""

    def __init__(self, source: Source, count: int) -> None:
        if count < 1:
            raise ValueError(f"data.max_train_objects={count} must be at least 1")
        self._source = source
        self._sizes = []
        for size in source.shard_sizes:
            self._sizes.append(min(size, count - sum(self._sizes)))

    @property
    def shard_sizes(self) -> list[int]:
        return [size for size in self._sizes if size > 0]

    def read(self, part: Part) -> list[PosedObject | BrokenSample]:
        return self._source.read(part)[: part.size(self._sizes[part.shard])]

    def check(self, probe: int, max_broken_fraction: float = 0.0) -> list[PosedObject]:
        return self._source.check(probe, max_broken_fraction)
