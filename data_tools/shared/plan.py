"""The plan of a rendering: cameras and size, plain numbers that cross to worker processes.

Worker processes import this module and no torch: it would cost each of them seconds and memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.shared.lights import LIGHTINGS, random_lights
from data_tools.shared.variants import Companion, companions, first_linear, first_tints
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.cameras.checks import fov_fault
from lgm.data.schema.sample import CameraRecord
from lgm.lights import Lights, studio_lights

NUM_CANONICAL_VIEWS = 4
MAX_SURFACE_POINTS = 5_000_000


@dataclass(frozen=True)
class RenderPlan:
    """How every object of a set is rendered.

    c2w: [V, 4, 4] float64, camera-to-world, OpenCV axes, world +y up; views 0-3 are canonical.
    world_from_file: [4, 4], turns a mesh file's axes to the world's, and stretches variants.
    normalize: "sphere" or "box", see data_tools.meshes.load.
    lighting: "studio", or "random": lights of its own for each object. lights: those to draw with.
    geometry, albedo: whether depth and normals, and base colours without light, are drawn beside the images.
    surface_points: how many points of the visible surface are written beside the images; 0 for none.
    trajectory: of data_tools.shared.trajectories; canonical views stand at `radius`, others may not.
    companions, tints: other meshes that stand beside the object, and its own other colours, of a variant.
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
    albedo: bool = False
    surface_points: int = 0
    trajectory: str = "spiral"
    companions: tuple[Companion, ...] = ()
    tints: tuple[tuple[float, float, float], ...] = ()

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.c2w)

    @property
    def has_passes(self) -> bool:
        """Whether more than colour is rendered: geometry or albedo."""
        return self.geometry or self.albedo

    @property
    def distances(self) -> tuple[float, float]:
        """How near and how far from the object's centre cameras stand."""
        distances = np.linalg.norm(self.c2w[:, :3, 3], axis=1)
        # Poses come from float32; what stands at the radius stands there exactly.
        return min(self.radius, round(float(distances.min()), 5)), max(
            self.radius, round(float(distances.max()), 5)
        )

    @property
    def depth_unit(self) -> float:
        """The unit of 16-bit images of depth; the whole object lies nearer than the farthest
        camera's distance + 1."""
        return (self.distances[1] + 1.0) / 65535

    def for_object(self, metadata: dict[str, Any], others: Sequence[Path] = ()) -> RenderPlan:
        """The plan with this object's lights; of a variant, with what is done to the mesh and put beside it.

        others: the meshes of the variant's further parts.
        """
        upright = self.world_from_file[:3, :3]
        linear = self.world_from_file.copy()
        # A variant is stretched in the world's axes, after the file is upright.
        linear[:3, :3] = first_linear(metadata) @ upright
        return replace(
            self,
            world_from_file=linear,
            companions=companions(metadata, others, upright),
            tints=first_tints(metadata),
            lights=random_lights(metadata["uid"]) if self.lighting == "random" else self.lights,
        )

    def camera_record(self) -> CameraRecord:
        """The plan's cameras as a shard records them; the first four are canonical."""
        return CameraRecord(self.fov_y_deg, self.c2w, tuple(range(NUM_CANONICAL_VIEWS)))

    def summary(self) -> dict[str, Any]:
        """The `render` entry of a data set's index."""
        # What most sets have not goes unsaid, so that older ones can be gone on with.
        chosen: dict[str, Any] = {"lighting": self.lighting} if self.lighting != "studio" else {}
        if self.geometry:
            chosen["depth_unit"] = self.depth_unit
        if self.albedo:
            chosen["albedo"] = True
        if self.surface_points:
            chosen["surface_points"] = self.surface_points
        return {
            "resolution": self.resolution,
            "views": self.num_views,
            "trajectory": f"canonical4+{self.trajectory}",
            "radius": self.radius,
            "fov_y_deg": self.fov_y_deg,
            "normalize": self.normalize,
            "up": self.up,
            **chosen,
        }


def make_plan(
    resolution: int = 512,
    num_views: int | None = None,
    radius: float = RADIUS,
    fov_y_deg: float = FOV_Y_DEG,
    normalize: str = "sphere",
    up: str = "y",
    max_triangles: int = 5_000_000,
    lighting: str = "studio",
    geometry: bool = False,
    trajectory: str = "spiral",
    albedo: bool = False,
    surface_points: int = 0,
) -> RenderPlan:
    """Four canonical views at elevation 0, then by default a spiral over the sphere.

    num_views: None for the trajectory's own number.
    up: the axis that points up in the mesh files, "y" (glTF, most OBJ) or "z" (many scans, CAD).
    """
    # Here, not above: only the parent process makes plans, and lgm.cameras brings torch.
    import torch

    from data_tools.shared.trajectories import camera_path
    from lgm.cameras import orbit_poses
    from lgm.cameras.conventions import z_up_to_y_up

    if resolution < 8:
        raise ValueError(f"--resolution {resolution} is too small; use 8 or more")
    if not 0 <= surface_points <= MAX_SURFACE_POINTS:
        raise ValueError(
            f"--surface-points {surface_points} must lie between 0, for none, and {MAX_SURFACE_POINTS}"
        )
    if fault := fov_fault(fov_y_deg):
        raise ValueError(f"--fov {fault}")
    if radius < 1.0:
        raise ValueError(f"--radius {radius} stands inside or against the object; use 1.0 or more")
    if lighting not in LIGHTINGS:
        raise ValueError(f"--lights {lighting!r} is none of {', '.join(LIGHTINGS)}")
    path = camera_path(trajectory, num_views, radius)
    # Trajectories may have a distance per view.
    radii = torch.tensor(path.radius, dtype=torch.float64)
    upright = torch.eye(4, dtype=torch.float64)
    if up == "z":
        upright = z_up_to_y_up(upright)
    elif up != "y":
        raise ValueError(f"--up {up!r} must be y or z")
    return RenderPlan(
        c2w=orbit_poses(path.elevation_deg, path.azimuth_deg, radii).double().numpy(),
        world_from_file=upright.numpy(),
        fov_y_deg=float(fov_y_deg),
        radius=float(radius),
        resolution=int(resolution),
        normalize=normalize,
        up=up,
        max_triangles=int(max_triangles),
        lighting=lighting,
        geometry=geometry,
        albedo=albedo,
        surface_points=int(surface_points),
        trajectory=trajectory,
    )
