"""Orbits around an object that stands upright about any axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras.cameras import Cameras
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.cameras.upright import tilt


def upright_orbit(
    elevation_deg: Float[Tensor, " V"] | Sequence[float],
    azimuth_deg: Float[Tensor, " V"] | Sequence[float],
    radius: float = RADIUS,
    fov_y_deg: float = FOV_Y_DEG,
    up: Float[Tensor, " 3"] | None = None,
) -> Cameras:
    """`Cameras.orbit` [V] around another axis than +y, carried there by the smallest rotation.

    up: a direction; None is +y.
    """
    cameras = Cameras.orbit(elevation_deg, azimuth_deg, radius, fov_y_deg)
    if up is None:
        return cameras
    pose = torch.eye(4)
    pose[:3, :3] = tilt(up)
    return replace(cameras, c2w=pose @ cameras.c2w)
