"""Studio lighting of rendered objects, the same numbers for every engine. Imports no torch.

Light comes from a sky, a ground and four soft lamps that are fixed to the world. A lamp is wrapped: a face
turned by `theta` from it gets strength * max((cos(theta) + 0.3) / 1.3, 0), as a broad light box gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Wrapped diffuse lighting: 0 would be Lambert's cosine alone.
WRAP = 0.3


@dataclass(frozen=True)
class Lights:
    """Irradiance over pi on a face, in linear light.

    ground, sky: on a face that looks straight down or up; in between by the sine of its elevation.
    strengths: [4]; directions: [4, 3] unit vectors towards the lamps, world frame.
    """

    ground: float
    sky: float
    strengths: np.ndarray
    directions: np.ndarray

    def irradiance(self, normals: np.ndarray) -> np.ndarray:
        """[..., 3] unit normals -> [...]; the formula of the OpenGL engine's shader."""
        total = self.ground + (self.sky - self.ground) * (0.5 + 0.5 * normals[..., 1])
        for strength, direction in zip(self.strengths, self.directions, strict=True):
            total = total + strength * np.maximum((normals @ direction + WRAP) / (1 + WRAP), 0.0)
        return total


def studio_lights() -> Lights:
    """The lights of all renders of this project, world frame, +y up.

    One lamp from below too: no side of an object is black, and each canonical view is lit a little
    differently, which shows its shape. A white face towards the main lamp gets just below 1.
    """
    directions = np.array([[0.5, 0.8, 0.6], [-0.7, 0.2, 0.5], [-0.1, 0.3, -1.0], [0.2, -1.0, 0.1]])
    strengths = np.array([0.38, 0.18, 0.16, 0.10])
    return Lights(0.30, 0.48, strengths, directions / np.linalg.norm(directions, axis=1, keepdims=True))
