"""Sketches of several objects, drawn in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lgm.cameras import Cameras
from lgm.data.sources.sketch import Sketch
from lgm.lights import studio_lights
from lgm.rendering.meshes import make_mesh_renderer
from lgm.rendering.meshes.lit import LitMeshes, draw_lit


@dataclass(frozen=True)
class Sketches:
    """Several objects' views; objects with fewer of them have the last one again."""

    meshes: LitMeshes
    cameras: Cameras
    size: int
    supersampling: int

    @classmethod
    def of(cls, sketches: Sequence[Sketch]) -> Sketches:
        """Raises ValueError in one line where images would differ in size."""
        sizes = sorted({sketch.size for sketch in sketches})
        if len(sizes) > 1:
            raise ValueError(f"objects of one batch are drawn at sizes {sizes}; give all one data.resolution")
        most = max(len(sketch.c2w) for sketch in sketches)
        filled = [np.arange(most).clip(max=len(sketch.c2w) - 1) for sketch in sketches]
        c2w = np.stack([sketch.c2w[rows] for sketch, rows in zip(sketches, filled, strict=True)])
        fov_y_deg = torch.tensor([sketch.fov_y_deg for sketch in sketches])[:, None]
        cameras = Cameras.from_fov(torch.from_numpy(c2w).float(), fov_y_deg)
        meshes = LitMeshes.pack([sketch.mesh for sketch in sketches])
        return cls(meshes, cameras, sizes[0], sketches[0].supersampling)

    def pin_memory(self) -> Sketches:
        return replace(self, meshes=self.meshes.pin_memory(), cameras=self.cameras.pin_memory())

    def draw(self, device: torch.device) -> UInt8[Tensor, "M V H W 4"]:
        return draw_lit(
            make_mesh_renderer(device.type),
            self.meshes.to(device),
            self.cameras.to(device, non_blocking=True),
            self.size,
            studio_lights(),
            self.supersampling,
        )
