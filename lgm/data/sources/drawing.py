"""Rendering of several objects' sketches in one call."""

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
    """Views of M objects; objects with fewer views than the most have their last one repeated.

    meshes: in one batch. cameras: [M, V]. size: side of the images in pixels. supersampling: samples along a
    pixel's side.
    """

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
        # Repeated views cost a little drawing and keep one shape; nobody reads them.
        filled = [np.arange(most).clip(max=len(sketch.c2w) - 1) for sketch in sketches]
        c2w = np.stack([sketch.c2w[rows] for sketch, rows in zip(sketches, filled, strict=True)])
        fov_y_deg = torch.tensor([sketch.fov_y_deg for sketch in sketches])[:, None]
        cameras = Cameras.from_fov(torch.from_numpy(c2w).float(), fov_y_deg)
        meshes = LitMeshes.pack([sketch.mesh for sketch in sketches])
        return cls(meshes, cameras, sizes[0], sketches[0].supersampling)

    def pin_memory(self) -> Sketches:
        """In page-locked host memory, from which copies to a GPU are asynchronous."""
        return replace(self, meshes=self.meshes.pin_memory(), cameras=self.cameras.pin_memory())

    def draw(self, device: torch.device) -> UInt8[Tensor, "M V H W 4"]:
        """Rendered on the device in studio light: uint8 sRGB with straight alpha."""
        return draw_lit(
            make_mesh_renderer(device.type),
            self.meshes.to(device),
            self.cameras.to(device, non_blocking=True),
            self.size,
            studio_lights(),
            self.supersampling,
        )
