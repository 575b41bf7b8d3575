"""The plan of a rendering: cameras and size, plain numbers that cross to worker processes.

Worker processes import this module and no torch: it would cost each of them seconds and memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from data_tools.lights import LIGHTINGS, Lights, random_lights, studio_lights
from lgm.data.sample import CameraRecord

NUM_CANONICAL_VIEWS = 4
TRAJECTORY = "canonical4+spiral"


@dataclass(frozen=True)
class RenderPlan:
    """How every object of a set is rendered.

    c2w: [V, 4, 4] float64, camera-to-world, OpenCV axes, world +y up; views 0-3 are canonical.
    world_from_file: [4, 4], turns a mesh file's axes to the world's.
    normalize: "sphere" or "box", see data_tools.meshes.load.
    lighting: "studio", or "random": lights of its own for each object. lights: those to draw with.
    geometry: whether depth and normals are drawn beside the pictures.
    """

    c2w: np.ndarray
    world_from_file: np.ndarray
    fov_y_deg: float
    radius: float
    resolution: int
    normalize: str
    up: str
    max_triangles: int
    lighting: str = "studio"
    lights: Lights = field(default_factory=studio_lights)
    geometry: bool = False

    @property
    def num_views(self) -> int:
        return len(self.c2w)

    @property
    def depth_unit(self) -> float:
        """What 1 in a 16-bit picture of depths stands for; the whole object lies nearer than radius + 1."""
        return (self.radius + 1.0) / 65535

    def lit_for(self, uid: str) -> RenderPlan:
        """The plan with this object's lights."""
        return replace(self, lights=random_lights(uid)) if self.lighting == "random" else self

    def camera_record(self) -> CameraRecord:
        return CameraRecord(self.fov_y_deg, self.c2w, tuple(range(NUM_CANONICAL_VIEWS)))

    def summary(self) -> dict[str, Any]:
        """What a data set's index says of its rendering."""
        # What most sets have not goes unsaid, so that older ones can be gone on with.
        chosen: dict[str, Any] = {"lighting": self.lighting} if self.lighting != "studio" else {}
        if self.geometry:
            chosen["depth_unit"] = self.depth_unit
        return {
            "resolution": self.resolution,
            "views": self.num_views,
            "trajectory": TRAJECTORY,
            "radius": self.radius,
            "fov_y_deg": self.fov_y_deg,
            "normalize": self.normalize,
            "up": self.up,
            **chosen,
        }


def make_plan(
    resolution: int = 512,
    num_views: int = 100,
    radius: float = 1.5,
    fov_y_deg: float = 49.1,
    normalize: str = "sphere",
    up: str = "y",
    max_triangles: int = 5_000_000,
    lighting: str = "studio",
    geometry: bool = False,
) -> RenderPlan:
    """Four canonical views at elevation 0, then a spiral over the sphere.

    up: the axis that points up in the mesh files, "y" (glTF, most OBJ) or "z" (many scans, CAD).
    """
    # Here, not above: only the parent process makes plans, and lgm.cameras brings torch.
    import torch

    from lgm.cameras import CANONICAL_AZIMUTHS_DEG, orbit_poses, spiral_angles
    from lgm.cameras.conventions import z_up_to_y_up

    if num_views < NUM_CANONICAL_VIEWS:
        raise ValueError(f"--views {num_views} is too few; the first {NUM_CANONICAL_VIEWS} are canonical")
    if resolution < 8:
        raise ValueError(f"--resolution {resolution} is too small; use 8 or more")
    if not 0 < fov_y_deg < 180:
        raise ValueError(f"--fov {fov_y_deg} must lie between 0 and 180 degrees")
    if radius < 1.0:
        raise ValueError(f"--radius {radius} stands inside or against the object; use 1.0 or more")
    if lighting not in LIGHTINGS:
        raise ValueError(f"--lights {lighting!r} is none of {', '.join(LIGHTINGS)}")
    elevations = [0.0] * NUM_CANONICAL_VIEWS
    azimuths = list(CANONICAL_AZIMUTHS_DEG)
    if num_views > NUM_CANONICAL_VIEWS:
        spiral = spiral_angles(num_views - NUM_CANONICAL_VIEWS)
        elevations += spiral[0].tolist()
        azimuths += spiral[1].tolist()
    upright = torch.eye(4, dtype=torch.float64)
    if up == "z":
        upright = z_up_to_y_up(upright)
    elif up != "y":
        raise ValueError(f"--up {up!r} must be y or z")
    return RenderPlan(
        c2w=orbit_poses(elevations, azimuths, radius).double().numpy(),
        world_from_file=upright.numpy(),
        fov_y_deg=float(fov_y_deg),
        radius=float(radius),
        resolution=int(resolution),
        normalize=normalize,
        up=up,
        max_triangles=int(max_triangles),
        lighting=lighting,
        geometry=geometry,
    )
