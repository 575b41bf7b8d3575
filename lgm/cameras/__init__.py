"""Camera conventions, all of them: OpenCV axes (+x right, +y down, +z forward), world +y up."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lgm.cameras.cameras import Cameras
    from lgm.cameras.rays import nearest_to_origin, pixel_rays, plucker_rays
    from lgm.cameras.trajectories import (
        CANONICAL_AZIMUTHS_DEG,
        angles_about,
        canonical_up,
        canonicalise,
        from_canonical,
        orbit_poses,
        sphere_angles,
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
    "sphere_angles",
    "spiral_angles",
    "turn_about_origin",
]
_MODULES = ("cameras", "rays", "trajectories")


def __getattr__(name: str) -> Any:
    """Names load their module at their first use (PEP 562): `lgm.cameras.checks` is read by processes that
    never load torch."""
    if name in __all__:
        for module in _MODULES:
            public = vars(import_module(f"lgm.cameras.{module}"))
            if name in public:
                globals()[name] = public[name]
                return public[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
