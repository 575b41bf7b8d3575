"""Draws that several kinds of objects share: rotations as matrices [3, 3], and sizes."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator


def rotation(rng: Generator, chance: float) -> np.ndarray:
    """Any rotation with that chance, else one about y by a quarter or none."""
    if rng.random() >= chance:
        return turn_y(rng.integers(4) * np.pi / 2)
    # A normalised Gaussian 4-vector is a uniform unit quaternion, and so a uniform rotation.
    q = rng.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def turn_y(angle: float) -> np.ndarray:
    """The rotation matrix [3, 3] about +y by `angle` radians, from +z towards +x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """As often between 1 and 2 as between 2 and 4."""
    # A plain number: numpy's own would make arrays of single precision double.
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
