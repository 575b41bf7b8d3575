"""A whole data set, decoded once into one uint8 tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from lgm.data.loader import Loader
from lgm.data.order import ORDER_VERSION, Slot
from lgm.data.schema.sample import BrokenSample, CameraRecord
from lgm.data.sources.base import PosedObject, Source


class DecodedObject(PosedObject):
    """An object whose images are rows of the tensor that holds those of the whole set.

    faults: by view, why its image cannot be read.
    """

    def __init__(
        self,
        uid: str,
        cameras: CameraRecord,
        rgba: UInt8[Tensor, "P H W 4"],
        first: int,
        faults: dict[int, str],
    ) -> None:
        self.uid = uid
        self.cameras = cameras
        self._rgba = rgba
        self._first = first
        self._faults = faults

    def decode(self, view_ids: Sequence[int]) -> np.ndarray:
        """A copy of the views' rows on the host."""
        rgba, rows = self.images(view_ids)
        return rgba[rows].cpu().numpy()

    def images(self, view_ids: Sequence[int]) -> tuple[Tensor, list[int]]:
        """The whole set's tensor and the rows of these views: nothing is copied."""
        for view in view_ids:
            if view in self._faults:
                raise BrokenSample(self._faults[view])
        return self._rgba, [self._first + view for view in view_ids]


class DecodedSource(Source):
    """Another source, with all its images in one tensor; its order stays what it was.

    allocate: an empty uint8 tensor of a shape, where the images are to lie.
    num_workers: processes that decode.

    Raises ValueError where images differ in size.
    """

    def __init__(
        self, source: Source, allocate: Callable[[tuple[int, ...]], Tensor], num_workers: int = 0
    ) -> None:
        self._source = source
        self._objects: list[DecodedObject | BrokenSample] = []
        # Names and cameras first, images later: how many views there are decides on the tensor's size.
        loaded = [_load(source, number) for number in range(source.num_objects)]
        height, width = image_size(loaded)
        num_views = [0 if isinstance(x, BrokenSample) else x.cameras.num_views for x in loaded]
        rgba = allocate((sum(num_views), height, width, 4))
        first = 0
        whole = Loader(_Whole(loaded), num_workers)
        for item, views, decoded in zip(loaded, num_views, whole, strict=True):
            if isinstance(item, BrokenSample):
                self._objects.append(item)
                continue
            if decoded.rgba is not None:
                if decoded.rgba.shape[1:3] != (height, width):
                    raise ValueError(
                        f"data/cache needs images of one size: object {item.uid!r} has "
                        f"{decoded.rgba.shape[1]} × {decoded.rgba.shape[2]}, others {height} × {width}; "
                        "pack them at one --resolution, or use data/cache=none"
                    )
                rgba[first : first + views] = decoded.rgba
            self._objects.append(DecodedObject(item.uid, item.cameras, rgba, first, decoded.faults))
            first += views

    @property
    def shard_sizes(self) -> list[int]:
        return self._source.shard_sizes

    def load(self, shard: int, ordinal: int) -> PosedObject:
        item = self._objects[self.first(shard) + ordinal]
        if isinstance(item, BrokenSample):
            raise item
        return item

    def slots(
        self, num_consumers: int, consumer: int, seed: int, start: int = 0, version: int = ORDER_VERSION
    ) -> Iterator[Slot]:
        return self._source.slots(num_consumers, consumer, seed, start, version)


def image_size(objects: Sequence[PosedObject | BrokenSample]) -> tuple[int, int]:
    """Height and width of the first image that can be read."""
    error: BrokenSample | None = None
    for item in objects:
        try:
            if not isinstance(item, BrokenSample):
                _, height, width, _ = item.decode([0]).shape
                return height, width
        except BrokenSample as broken:
            error = broken
    raise ValueError(f"no image can be read; the last: {error}")


@dataclass(frozen=True)
class _Decoded:
    """rgba: all views, zero where broken; None where none can be read. faults: by view."""

    rgba: Tensor | None
    faults: dict[int, str]


class _Whole(Dataset):
    """Each object with all its views decoded."""

    def __init__(self, objects: list[PosedObject | BrokenSample]) -> None:
        self._objects = objects

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> _Decoded:
        item = self._objects[index]
        if isinstance(item, BrokenSample):
            return _Decoded(None, {})
        views = range(item.cameras.num_views)
        try:
            return _Decoded(torch.from_numpy(item.decode(views)), {})
        except BrokenSample:
            return _one_by_one(item, views)


def _one_by_one(item: PosedObject, views: Sequence[int]) -> _Decoded:
    """Views that are broken spoil those draws alone that use them."""
    images: dict[int, np.ndarray] = {}
    faults: dict[int, str] = {}
    for view in views:
        try:
            images[view] = item.decode([view])[0]
        except BrokenSample as error:
            faults[view] = str(error)
    if not images:
        return _Decoded(None, faults)
    shape = next(iter(images.values())).shape  # of the first view that can be read
    for view, image in list(images.items()):
        if image.shape != shape:
            faults[view] = f"object {item.uid!r}: views of different sizes {sorted({shape, image.shape})}"
            del images[view]
    rgba = torch.zeros(len(views), *shape, dtype=torch.uint8)
    for view, image in images.items():
        rgba[view] = torch.from_numpy(image)
    return _Decoded(rgba, faults)


def _load(source: Source, number: int) -> PosedObject | BrokenSample:
    try:
        # By shard and ordinal, not `place`: evaluation may go through a source in another order.
        return source.load(*source.in_shards(number))
    except BrokenSample as error:
        return error
