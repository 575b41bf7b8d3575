"""Where the cameras of a set stand: four canonical views, then what a protocol or a training asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, spiral_angles
from lgm.cameras.canonical import RADIUS

_SEED = 0  # every set of a protocol has the same views


@dataclass(frozen=True)
class Path:
    """elevation_deg, azimuth_deg, radius: one number a view."""

    elevation_deg: list[float]
    azimuth_deg: list[float]
    radius: list[float]

    def __add__(self, other: Path) -> Path:
        return Path(
            self.elevation_deg + other.elevation_deg,
            self.azimuth_deg + other.azimuth_deg,
            self.radius + other.radius,
        )


def spiral(num_views: int, radius: float) -> Path:
    """From the top of the sphere to its bottom, evenly: what networks are trained on."""
    if num_views == 0:
        return Path([], [], [])
    elevation_deg, azimuth_deg = spiral_angles(num_views)
    return Path(elevation_deg.tolist(), azimuth_deg.tolist(), [radius] * num_views)


def gslrm_like(num_views: int, radius: float) -> Path:
    """For configs/protocol/gslrm_like.yaml: four inputs at elevation 20°, then views from random
    directions, evenly over the sphere, at random distances of 1 to 1.87 radii: 1.5 to 2.8.

    The distances are one from each of as many equal stretches, in random order: a set of any size covers
    them.
    """
    count = num_views - len(CANONICAL_AZIMUTHS_DEG)
    rng = np.random.default_rng(_SEED)
    # Even over the sphere: equal bands of height have equal areas (Archimedes).
    height, azimuth = rng.uniform(-1, 1, count), rng.uniform(0, 360, count)
    stretch = (rng.permutation(count) + rng.uniform(size=count)) / max(1, count)
    distances = radius * (1 + stretch * (2.8 / RADIUS - 1))
    targets = Path(np.degrees(np.arcsin(height)).tolist(), azimuth.tolist(), distances.tolist())
    return _ring(20.0, len(CANONICAL_AZIMUTHS_DEG), radius) + targets


def grm_like(num_views: int, radius: float) -> Path:
    """For configs/protocol/grm_like.yaml and gso_grm.yaml: four rings of sixteen views, the second of which
    holds the inputs."""
    path = Path([], [], [])
    for elevation_deg in (10.0, 20.0, 30.0, 40.0):
        path += _ring(elevation_deg, 16, radius)
    return path


def instant3d(num_views: int, radius: float) -> Path:
    """For configs/protocol/gso_gslrm.yaml: four rings of sixteen views, the second of which holds the inputs
    (Instant3D, arXiv 2311.06214, whose renders GS-LRM follows)."""
    path = Path([], [], [])
    for elevation_deg in (0.0, 20.0, 40.0, 60.0):
        path += _ring(elevation_deg, 16, radius)
    return path


@dataclass(frozen=True)
class Trajectory:
    """make: the views after the canonical ones. num_views: how many by default, canonical ones too.
    least: how few it can be. fixed: no other number."""

    make: Callable[[int, float], Path]
    num_views: int
    least: int
    fixed: bool = False


TRAJECTORIES = {
    "spiral": Trajectory(spiral, num_views=100, least=4),
    "gslrm_like": Trajectory(gslrm_like, num_views=40, least=9),
    "grm_like": Trajectory(grm_like, num_views=68, least=68, fixed=True),
    "instant3d": Trajectory(instant3d, num_views=68, least=68, fixed=True),
}


def camera_path(name: str, num_views: int | None, radius: float) -> Path:
    """All views of a set; the first four are canonical. Raises ValueError."""
    if name not in TRAJECTORIES:
        raise ValueError(f"--trajectory {name!r} is none of {', '.join(TRAJECTORIES)}")
    trajectory = TRAJECTORIES[name]
    count = trajectory.num_views if num_views is None else num_views
    if trajectory.fixed and count != trajectory.num_views:
        raise ValueError(f"--views {count}: --trajectory {name} has {trajectory.num_views}; leave it out")
    if count < trajectory.least:
        raise ValueError(
            f"--views {count} is too few for --trajectory {name}: at least {trajectory.least}, of which the "
            "first 4 are canonical"
        )
    canonical = _ring(0.0, len(CANONICAL_AZIMUTHS_DEG), radius)
    return canonical + trajectory.make(count - len(CANONICAL_AZIMUTHS_DEG), radius)


def _ring(elevation_deg: float, count: int, radius: float) -> Path:
    """Evenly around, from the front on."""
    return Path([elevation_deg] * count, [360 / count * i for i in range(count)], [radius] * count)
