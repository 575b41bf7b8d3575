"""Lights for sets of objects: each object's own, and any of them as an environment. Imports no torch."""

from __future__ import annotations

import numpy as np

from data_tools.shared.naming import stable_generator
from lgm.lights import Lights

LIGHTINGS = ("studio", "random")
NUM_LAMPS = 4
# What a white face gets at most; a little over 1 is clipped in a few pixels only.
_BRIGHTEST = 1.03
_ENVIRONMENT_HEIGHT = 64
# Radiance of a lamp of strength 1 on the environment: these multiples of these powers of the cosine of the
# angle to it. A non-negative least squares fit to the wrapped lamp's irradiance, which it meets within 0.12.
_LOBES = ((2, 0.466), (4, 2.526))


def random_lights(uid: str) -> Lights:
    """Lamps of other strengths in other places, the same for a uid on every machine."""
    generator = stable_generator(uid)
    directions = generator.normal(size=(NUM_LAMPS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[0, 1] = abs(directions[0, 1])  # the main lamp stands above
    ground = generator.uniform(0.15, 0.40)
    sky = ground + generator.uniform(0.0, 0.25)
    strengths = generator.dirichlet(np.ones(NUM_LAMPS)) * generator.uniform(0.4, 1.0)
    order = np.argsort(-strengths)
    lights = Lights(ground, sky, strengths[order], directions)
    scale = _BRIGHTEST / lights.irradiance(sphere_directions(32)[0]).max()
    return Lights(ground * scale, sky * scale, strengths[order] * scale, directions)


def environment(lights: Lights) -> np.ndarray:
    """Radiance [H, 2H, 3] float32, bottom row first, whose light on a diffuse face is `lights`.

    Equirectangular as Blender reads it: the pole is the world's z axis, whichever way is up.
    """
    directions, _ = sphere_directions(_ENVIRONMENT_HEIGHT)
    # A radiance a + b sin(elevation) gives irradiance over pi of a + 2/3 b sin(elevation).
    middle, slope = (lights.sky + lights.ground) / 2, (lights.sky - lights.ground) / 2
    total = middle + 1.5 * slope * directions[..., 1]
    for strength, direction in zip(lights.strengths, lights.directions, strict=True):
        cosine = np.maximum(directions @ direction, 0.0)
        total = total + strength * sum(weight * cosine**power for power, weight in _LOBES)
    # A sky much darker than the ground would ask for less than no light.
    return np.repeat(np.maximum(total, 0.0)[..., None], 3, axis=-1).astype(np.float32)


def sphere_directions(height: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit directions [H, 2H, 3] of an equirectangular image's pixels, and their solid angles [H, 1]."""
    latitude = ((np.arange(height) + 0.5) / height - 0.5) * np.pi
    longitude = (0.5 - (np.arange(2 * height) + 0.5) / (2 * height)) * 2 * np.pi
    around = np.cos(latitude)[:, None]
    directions = np.stack(
        np.broadcast_arrays(
            around * np.cos(longitude), around * np.sin(longitude), np.sin(latitude)[:, None]
        ),
        axis=-1,
    )
    return directions, around * (np.pi / height) ** 2
