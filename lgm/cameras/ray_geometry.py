"""Triangulation of an object's position from the rays of cameras that look at it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from lgm.cameras.upright import looking_along

_MIDDLE_STEPS = 4


def meeting_point(
    origins: Float[np.ndarray, "V 3"], directions: Float[np.ndarray, "V 3"]
) -> tuple[Float[np.ndarray, 3], float] | None:
    """Least-squares triangulation: the point nearest to all rays, and its root mean square distance from
    them.

    origins, directions: [V, 3], directions of unit length. None where the rays are almost parallel.
    """
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]  # [V, 3, 3]
    # Normal equations of the squared distances to the rays; singular where all rays are parallel.
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
    """The direction of a mask's middle: of its bounding box in a level camera that looks
    there."""
    axis = directions.mean(axis=0)
    # A fixed point: the box depends on the camera that looks at it.
    for _ in range(_MIDDLE_STEPS):
        frame = looking_along(axis, up)
        seen = directions @ frame
        seen = seen[:, :2] / np.maximum(seen[:, 2:], 1e-3)
        x, y = (seen.min(axis=0) + seen.max(axis=0)) / 2
        axis = frame @ np.array([x, y, 1.0])
    return axis / np.linalg.norm(axis)
