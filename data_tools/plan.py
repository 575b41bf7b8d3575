"""The plan of a rendering: cameras and size, plain numbers that cross to worker processes.

Worker processes import this module and no torch: it would cost each of them seconds and memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lgm.data.sample import CameraRecord

NUM_CANONICAL_VIEWS = 4
TRAJECTORY = "canonical4+spiral"


@dataclass(frozen=True)
class RenderPlan:
    """How every object of a set is rendered.

    c2w: [V, 4, 4] float64, camera-to-world, OpenCV axes, world +y up; views 0-3 are canonical.
    world_from_file: [4, 4], turns a mesh file's axes to the world's.
    normalize: "sphere" or "box", see data_tools.meshes.load.
    """

    c2w: np.ndarray
    world_from_file: np.ndarray
    fov_y_deg: float
    radius: float
    resolution: int
    normalize: str
    up: str
    max_triangles: int

    @property
    def num_views(self) -> int:
        return len(self.c2w)

    def camera_record(self) -> CameraRecord:
        return CameraRecord(self.fov_y_deg, self.c2w, tuple(range(NUM_CANONICAL_VIEWS)))

    def summary(self) -> dict[str, Any]:
        """What a data set's index says of its rendering."""
        return {
            "resolution": self.resolution,
            "views": self.num_views,
            "trajectory": TRAJECTORY,
            "radius": self.radius,
            "fov_y_deg": self.fov_y_deg,
            "normalize": self.normalize,
            "up": self.up,
        }


def make_plan(
    resolution: int = 512,
    num_views: int = 100,
    radius: float = 1.5,
    fov_y_deg: float = 49.1,
    normalize: str = "sphere",
    up: str = "y",
    max_triangles: int = 5_000_000,
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
    )
