"""The only room that knows axes: +x right, +y down, +z forward for cameras, +y up for the world."""

from lgm.cameras.cameras import Cameras
from lgm.cameras.rays import nearest_to_origin, pixel_rays, plucker_rays
from lgm.cameras.trajectories import (
    CANONICAL_AZIMUTHS_DEG,
    angles_about,
    canonical_up,
    canonicalise,
    from_canonical,
    orbit_poses,
    spiral_angles,
    turn_about_origin,
)

__all__ = [
    "CANONICAL_AZIMUTHS_DEG",
    "Cameras",
    "angles_about",
    "canonical_up",
    "canonicalise",
    "from_canonical",
    "nearest_to_origin",
    "orbit_poses",
    "pixel_rays",
    "plucker_rays",
    "spiral_angles",
    "turn_about_origin",
]
