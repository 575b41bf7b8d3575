"""`data=procedural`: procedural objects, a pure function of a seed, generated and rendered while training."""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from lgm.cameras import Cameras
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.data.order import ORDER_VERSION, Slot, slots
from lgm.data.schema.sample import BrokenSample, CameraRecord
from lgm.data.sources.base import PosedObject, Source, hash_of
from lgm.data.sources.drawing import Sketches
from lgm.data.sources.procedural.booleans import require_manifold
from lgm.data.sources.procedural.objects import VERSION, ProceduralMesh, make_object, uid_of
from lgm.data.sources.sketch import Sketch
from lgm.data.sources.trajectory import spiral_record
from lgm.errors import reading
from lgm.rendering.meshes import make_mesh_renderer
from lgm.rendering.meshes.lit import LitMeshes, draw_depths

log = logging.getLogger(__name__)

# Objects that are not trained on have indices from here on.
HELD_OUT = 1_000_000_000
# An object, made, takes about a megabyte.
_BLOCK = 64


class ProceduralObject(PosedObject):
    """One object, whose views are drawn when they are asked for and kept as long as it is.

    is_deferred: views are left to the device; then none are drawn here.
    """

    def __init__(
        self,
        uid: str,
        mesh: ProceduralMesh,
        cameras: CameraRecord,
        resolution: int,
        supersampling: int,
        is_deferred: bool = False,
    ) -> None:
        self.uid = uid
        self.cameras = cameras
        self._mesh = mesh
        self._resolution = resolution
        self._supersampling = supersampling
        self._is_deferred = is_deferred
        self._views: dict[int, np.ndarray] = {}

    def decode(self, view_ids: Sequence[int]) -> np.ndarray:
        """The views rendered on the CPU, each once."""
        for view in view_ids:
            if view not in self._views:
                # Alone: which views are drawn together, other ones in a resumed run, can move no rounding.
                (image,) = Sketches.of([self._sketch([view])]).draw(torch.device("cpu"))[0].numpy()
                self._views[view] = image
        return np.stack([self._views[view] for view in view_ids])

    def sketch(self, view_ids: Sequence[int]) -> Sketch | None:
        """Mesh and cameras for the device to render; None where this process renders."""
        return self._sketch(view_ids) if self._is_deferred else None

    def depths(self, view_ids: Sequence[int]) -> np.ndarray:
        """Depth of the mesh at the middle of each pixel, in world units."""
        c2w = torch.from_numpy(self.cameras.c2w[list(view_ids)]).float()[None]
        cameras = Cameras.from_fov(c2w, self.cameras.fov_y_deg)
        meshes = LitMeshes.pack([self._mesh])
        return draw_depths(make_mesh_renderer("cpu"), meshes, cameras, self._resolution)[0].numpy()

    def _sketch(self, view_ids: Sequence[int]) -> Sketch:
        c2w = self.cameras.c2w[list(view_ids)]
        return Sketch(self._mesh, c2w, self.cameras.fov_y_deg, self._resolution, self._supersampling)


class ProceduralSource(Source):
    """Objects of a seed: `train` has the indices from 0, every other split those from 1,000,000,000.

    num_objects, num_held_out: of `train`, of the others. reuse: how often an object is used, each time with
    other views, before it is dropped; a loader process has 64 objects at a time. num_views: the canonical
    ones and a spiral, of which only those in use are drawn. booleans: whether objects are cut by others.
    """

    remedy = "; this is a fault of the generator"

    def __init__(
        self,
        split: str | None = None,
        seed: int = 0,
        num_objects: int = 1_000_000,
        num_held_out: int = 64,
        num_views: int = 36,
        resolution: int = 128,
        supersampling: int = 2,
        reuse: int = 1,
        booleans: bool = True,
        radius: float = RADIUS,
        fov_y_deg: float = FOV_Y_DEG,
    ) -> None:
        for name, value, least in (
            ("seed", seed, 0), ("num_objects", num_objects, 1), ("num_held_out", num_held_out, 1),
            ("num_views", num_views, 5), ("resolution", resolution, 1), ("supersampling", supersampling, 1),
            ("reuse", reuse, 1),
        ):  # fmt: skip
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"data.{name}={value!r} must be a whole number of at least {least}")
        if num_objects > HELD_OUT:
            raise ValueError(
                f"data.num_objects={num_objects} is more than {HELD_OUT}, where held-out ones begin"
            )
        if booleans:
            require_manifold()
        self.seed, self.reuse = seed, reuse
        self._is_training = split == "train"
        self._first = 0 if self._is_training else HELD_OUT
        count = num_objects if self._is_training else num_held_out
        whole, rest = divmod(count, _BLOCK)
        # A shard is a block that fits into a process's memory, so that repeated passes over it generate
        # nothing.
        self._sizes = [_BLOCK] * whole + [rest] * (rest > 0)
        self._cameras = spiral_record(num_views, radius, fov_y_deg)
        self._resolution, self._supersampling, self._booleans = resolution, supersampling, booleans
        self._is_deferred = False
        self._made: OrderedDict[int, ProceduralObject] = OrderedDict()

    @property
    def shard_sizes(self) -> list[int]:
        return self._sizes

    @property
    def content_hash(self) -> str:
        return hash_of("procedural", VERSION, self.seed, self._booleans, self._first, self.num_objects)

    def num_distinct(self, num_samples: int) -> int:
        return min(-(-num_samples // self.reuse), self.num_objects)

    def load(self, shard: int, ordinal: int) -> PosedObject:
        """The object, generated at its first use and kept until 64 others were used since."""
        index = self._first + self.first(shard) + ordinal
        if index not in self._made:
            uid = uid_of(self.seed, index, self._booleans)
            # A fault of the generator costs an object, which the log names, and not the run.
            with reading(f"object {uid!r}", kind=BrokenSample, verb="made"):
                mesh = make_object(self.seed, index, self._booleans)
            self._made[index] = ProceduralObject(
                uid,
                mesh,
                self._cameras,
                self._resolution,
                self._supersampling,
                self._is_deferred,
            )
        self._made.move_to_end(index)
        while len(self._made) > _BLOCK:
            self._made.popitem(last=False)
        return self._made[index]

    def slots(
        self, num_consumers: int, consumer: int, seed: int, start: int = 0, version: int = ORDER_VERSION
    ) -> Iterator[Slot]:
        """The order of `lgm.data.order` with each part repeated `reuse` times while its objects are in
        memory.
        """
        return slots(self.shard_sizes, num_consumers, consumer, seed, start, self.reuse, version)

    def on_device(self, device: torch.device) -> Source:
        """On a GPU, loader processes make objects and the device draws them."""
        other = copy.copy(self)
        other._is_deferred = device.type != "cpu"
        other._made = OrderedDict()
        return other

    def check_files(self, num_readers: int) -> None:
        if self._is_training:
            log.info(
                "data: procedural objects of seed %d: each is used data.reuse=%d times, "
                "%d at a time in each of %d loader processes, and dropped",
                self.seed, self.reuse, _BLOCK, num_readers,
            )  # fmt: skip

    def check(self, probe: int, *args: Any, **kwargs: Any) -> list[PosedObject]:
        """One object is generated: all have the same cameras."""
        return super().check(min(probe, 1), *args, **kwargs)  # all have the same cameras
