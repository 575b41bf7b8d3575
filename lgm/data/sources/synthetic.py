"""Synthetic objects of random Gaussians: to try a machine and for tests, without any file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lgm.cameras import Cameras
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.data.schema.sample import CameraRecord
from lgm.data.sources.base import PosedObject, Source
from lgm.data.sources.trajectory import NUM_CANONICAL, spiral_record
from lgm.gaussians import Gaussians
from lgm.rendering import TorchRenderer
from lgm.types import RenderOutput

_COVERED = 0.5  # where a pixel is mostly air, it has no depth


class SyntheticObject(PosedObject):
    """A cluster of coloured ellipsoids, rendered when a view is asked for."""

    def __init__(self, seed: int, cameras: CameraRecord, resolution: int, num_gaussians: int) -> None:
        self.uid = f"synthetic-{seed:06d}"
        self.cameras = cameras
        self.resolution = resolution
        self.gaussians = blobs(seed, num_gaussians)

    def decode(self, view_ids: Sequence[int]) -> np.ndarray:
        """Rendered over black and divided by alpha: straight colour."""
        render = self._render(view_ids)
        alphas = render.alphas[0].clamp(0, 1)
        colors = (render.images[0] / alphas.clamp_min(1e-3)).clamp(0, 1)
        rgba = torch.cat([colors, alphas], dim=1).permute(0, 2, 3, 1)
        return (rgba * 255).round().to(torch.uint8).numpy()

    def depths(self, view_ids: Sequence[int]) -> np.ndarray:
        """Depth divided by alpha; 0 where a pixel is less than half covered."""
        render = self._render(view_ids)
        alphas = render.alphas[0, :, 0]
        depths = render.depths[0, :, 0] / alphas.clamp_min(_COVERED)
        return torch.where(alphas >= _COVERED, depths, 0.0).numpy()

    @torch.no_grad()
    def _render(self, view_ids: Sequence[int]) -> RenderOutput:
        c2w = torch.from_numpy(self.cameras.c2w[list(view_ids)]).float()[None]
        cameras = Cameras.from_fov(c2w, self.cameras.fov_y_deg)
        size = self.resolution
        return TorchRenderer()(self.gaussians, cameras, size, size, background=(0.0, 0.0, 0.0))


class SyntheticSource(Source):
    """`num_objects` random objects with `num_views` views each; splits differ in their seeds."""

    def __init__(
        self,
        split: str | None = None,
        num_objects: int = 64,
        num_views: int = 20,
        resolution: int = 64,
        gaussians_per_object: int = 48,
        radius: float = RADIUS,
        fov_y_deg: float = FOV_Y_DEG,
    ) -> None:
        if num_views <= NUM_CANONICAL or num_objects < 1:
            raise ValueError(
                f"data=synthetic needs num_objects={num_objects} of at least 1 and "
                f"num_views={num_views} of more than {NUM_CANONICAL}"
            )
        self._cameras = spiral_record(num_views, radius, fov_y_deg)
        self._first_seed = 0 if split == "train" else 1_000_000
        self._num_objects = num_objects
        self._resolution = resolution
        self._gaussians_per_object = gaussians_per_object

    @property
    def shard_sizes(self) -> list[int]:
        return [self._num_objects]

    def load(self, shard: int, ordinal: int) -> PosedObject:
        return SyntheticObject(
            self._first_seed + ordinal, self._cameras, self._resolution, self._gaussians_per_object
        )

    def check(self, probe: int, *args: Any, **kwargs: Any) -> list[PosedObject]:
        """One object is rendered: all are alike."""
        return super().check(min(probe, 1), *args, **kwargs)  # all are alike


def blobs(seed: int, num_gaussians: int) -> Gaussians:
    """Random ellipsoids within the sphere of radius 0.5."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(1, num_gaussians, 3, generator=generator)
    radii = 0.5 * torch.rand(1, num_gaussians, 1, generator=generator)
    quats = torch.randn(1, num_gaussians, 4, generator=generator)
    return Gaussians(
        means=torch.nn.functional.normalize(directions, dim=-1) * radii,
        quats=torch.nn.functional.normalize(quats, dim=-1),
        scales=0.03 + 0.07 * torch.rand(1, num_gaussians, 3, generator=generator),
        opacities=torch.full((1, num_gaussians), 0.95),
        colors=torch.rand(1, num_gaussians, 3, generator=generator),
    )
