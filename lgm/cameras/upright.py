"""Upright cameras about any axis: estimate the up direction, look along a direction, rotate one to another.

In NumPy's double precision, like everything that is read from files.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def up_direction(c2w: Float[np.ndarray, "V 4 4"]) -> Float[np.ndarray, 3]:
    """The world's up, as far as the cameras tell: at right angles to their right-hand axes.

    Who holds a camera level, whatever it looks at, holds its right-hand axis horizontal; the direction
    most nearly at right angles to all of these is exact for renders and an average for photographs.
    Which of its two ends is up, and all where the right-hand axes do not say it (one camera, or a line
    of them), comes from the tops of the images.
    """
    right, top = c2w[:, :3, 0], -c2w[:, :3, 1].mean(axis=0)
    spread, axes = np.linalg.eigh(right.T @ right / len(right))  # ascending
    undecided = axes[:, spread < 0.02 + spread[0]]  # [3, 1], or more where the cameras are in one line
    up = undecided @ (undecided.T @ top)
    length = np.linalg.norm(up)
    return up / length if length > 1e-6 else np.array([0.0, 1.0, 0.0])


def looking_along(
    direction: Float[np.ndarray, 3], up: Float[np.ndarray, 3], fallback: np.ndarray | None = None
) -> Float[np.ndarray, "3 3"]:
    """The rotation, camera axes to world, of an upright camera (OpenCV's axes) that looks that way.

    fallback: what is up in the image of a camera that looks straight up or down.
    """
    forward = direction / np.linalg.norm(direction)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-3:
        right = np.cross(forward, np.array([0.0, 0.0, 1.0]) if fallback is None else fallback)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward], axis=-1)


def turning(start: Float[np.ndarray, 3], end: Float[np.ndarray, 3]) -> Float[np.ndarray, "3 3"]:
    """The shortest rotation that takes one unit direction to another; opposite ones by half a turn about
    x, or z where they lie along x."""
    axis, cosine = np.cross(start, end), float(start @ end)
    if cosine < -1 + 1e-9:
        axis = np.array([0.0, 0.0, 1.0]) if abs(start[0]) > 0.9 else np.array([1.0, 0.0, 0.0])
        axis = axis - start * (axis @ start)
        axis /= np.linalg.norm(axis)
        return 2 * np.outer(axis, axis) - np.eye(3)
    # Rodrigues' formula without angles: R = I + K + K² / (1 + cos).
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)


def tilt(up: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation, float32, that carries +y to the direction `up`, of any length."""
    direction = np.array(up.tolist(), dtype=np.float64)
    direction /= np.linalg.norm(direction)
    return torch.from_numpy(turning(np.array([0.0, 1.0, 0.0]), direction)).float()
