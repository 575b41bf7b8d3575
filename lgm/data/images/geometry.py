"""Where an object lies, and which way is up, from the cameras that look at it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

_MIDDLE_STEPS = 4


def up_direction(c2w: Float[np.ndarray, "V 4 4"]) -> Float[np.ndarray, 3]:
    """The world's up, as far as the cameras tell: at right angles to their right-hand axes.

    Who holds a camera level, whatever it looks at, holds its right-hand axis horizontal; the direction
    most nearly at right angles to all of these is exact for renders and an average for photographs.
    Which of its two ends is up, and all where the right-hand axes do not say it (one camera, or a line
    of them), comes from the tops of the pictures.
    """
    right, top = c2w[:, :3, 0], -c2w[:, :3, 1].mean(axis=0)
    spread, axes = np.linalg.eigh(right.T @ right / len(right))  # ascending
    undecided = axes[:, spread < 0.02 + spread[0]]  # [3, 1], or more where the cameras are in one line
    up = undecided @ (undecided.T @ top)
    length = np.linalg.norm(up)
    return up / length if length > 1e-6 else np.array([0.0, 1.0, 0.0])


def meeting_point(
    origins: Float[np.ndarray, "V 3"], directions: Float[np.ndarray, "V 3"]
) -> tuple[Float[np.ndarray, 3], float] | None:
    """The point nearest to all rays, and its root mean square distance from them; None where the rays
    are as good as parallel."""
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]  # [V, 3, 3]
    total = across.sum(axis=0)
    if np.linalg.eigvalsh(total / len(origins))[0] < 1e-4:
        return None
    point = np.linalg.solve(total, (across @ origins[:, :, None]).sum(axis=0)[:, 0])
    missed = np.linalg.norm((across @ (point - origins)[:, :, None])[..., 0], axis=-1)
    return point, float(np.sqrt((missed**2).mean()))


def outline(alpha: UInt8[np.ndarray, "H W"], threshold: int = 128) -> Float[np.ndarray, "n 2"]:
    """Pixel coordinates of the first and last solid pixel of every row and column, their outer corners:
    few points, and all that the outline's hull is made of. Empty where nothing is solid."""
    solid = alpha >= threshold
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    if not len(rows):
        return np.zeros((0, 2))
    height, width = solid.shape
    left, right = solid[rows].argmax(axis=1), width - solid[rows, ::-1].argmax(axis=1)
    top, bottom = solid[:, columns].argmax(axis=0), height - solid[::-1, columns].argmax(axis=0)
    middle_y, middle_x = rows + 0.5, columns + 0.5
    sides = [(left, middle_y), (right, middle_y), (middle_x, top), (middle_x, bottom)]
    return np.concatenate([np.stack(np.broadcast_arrays(x, y), axis=-1) for x, y in sides]).astype(np.float64)


def middle(directions: Float[np.ndarray, "n 3"], up: Float[np.ndarray, 3]) -> Float[np.ndarray, 3]:
    """The direction of the middle of an outline: of its bounding box as a level camera sees it that looks
    there."""
    axis = directions.mean(axis=0)
    for _ in range(_MIDDLE_STEPS):
        frame = looking_along(axis, up)
        seen = directions @ frame
        seen = seen[:, :2] / np.maximum(seen[:, 2:], 1e-3)
        x, y = (seen.min(axis=0) + seen.max(axis=0)) / 2
        axis = frame @ np.array([x, y, 1.0])
    return axis / np.linalg.norm(axis)


def looking_along(
    direction: Float[np.ndarray, 3], up: Float[np.ndarray, 3], fallback: np.ndarray | None = None
) -> Float[np.ndarray, "3 3"]:
    """The rotation, camera axes to world, of an upright camera (OpenCV's axes) that looks that way.

    fallback: what is up in the picture of a camera that looks straight up or down.
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
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)
