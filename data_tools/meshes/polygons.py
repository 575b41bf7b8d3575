"""Polygons to triangles: a fan where that's right, ear clipping where the polygon is not convex."""

from __future__ import annotations

import numpy as np


def triangulate(corners: np.ndarray, sizes: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Corner indices of triangles.

    corners: [C] vertex index of each corner, polygon after polygon.
    sizes: [P] number of corners of each polygon, each >= 3.
    positions: [V, 3].
    Returns [F, 3] indices into `corners`.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    triangles = []
    for size in np.unique(sizes):
        members = starts[sizes == size][:, None] + np.arange(size)  # [P of this size, size]
        if size == 3:
            triangles.append(members)
            continue
        points = positions[corners[members]]
        convex = _is_convex(points)
        triangles.append(members[convex][:, _fan(size)].reshape(-1, 3))
        for polygon, outline in zip(members[~convex], points[~convex], strict=True):
            triangles.append(polygon[_clip_ears(outline)])
    return np.concatenate(triangles) if triangles else np.zeros((0, 3), dtype=np.int64)


def _fan(size: int) -> np.ndarray:
    return np.array([[0, i, i + 1] for i in range(1, size - 1)])


def _polygon_normals(points: np.ndarray) -> np.ndarray:
    """Newell's normals of polygons [P, n, 3]: right for concave and slightly bent ones too."""
    return np.cross(points, np.roll(points, -1, axis=1)).sum(axis=1)


def _is_convex(points: np.ndarray) -> np.ndarray:
    before = points - np.roll(points, 1, axis=1)
    after = np.roll(points, -1, axis=1) - points
    turns = np.einsum("pnc,pc->pn", np.cross(before, after), _polygon_normals(points))
    scale = np.abs(turns).max(axis=1, keepdims=True)
    return (turns >= -1e-6 * scale).all(axis=1)


def _clip_ears(points: np.ndarray) -> np.ndarray:
    """Triangles [n - 2, 3] of one simple polygon [n, 3]."""
    flat = _flatten(points)
    left = np.arange(len(flat))
    triangles = []
    ear = 0
    while len(left) > 3:
        # From where the last one was: to begin anew each time takes minutes with thousands of corners.
        places = (i % len(left) for i in range(ear, ear + len(left)))
        ear = next((i for i in places if _is_ear(flat, left, i)), 0)
        # A polygon that crosses itself may have no ear; clipping any corner ends with all covered.
        triangles.append([left[ear - 1], left[ear], left[(ear + 1) % len(left)]])
        left = np.delete(left, ear)
    triangles.append(left)
    return np.array(triangles)


def _flatten(points: np.ndarray) -> np.ndarray:
    """The polygon [n, 3] in its own plane [n, 2], counter-clockwise."""
    normal = _polygon_normals(points[None])[0]
    axis = int(np.abs(normal).argmax())
    flat = points[:, [(axis + 1) % 3, (axis + 2) % 3]]
    return flat if normal[axis] >= 0 else flat * (-1.0, 1.0)


def _is_ear(flat: np.ndarray, left: np.ndarray, i: int) -> bool:
    a, b, c = flat[left[i - 1]], flat[left[i]], flat[left[(i + 1) % len(left)]]
    if _cross(b - a, c - b) <= 0:
        return False
    others = flat[np.delete(left, [i - 1, i, (i + 1) % len(left)])]
    inside = (
        (_cross(b - a, others - a) >= 0) & (_cross(c - b, others - b) >= 0) & (_cross(a - c, others - c) >= 0)
    )
    # The same point twice is how a polygon with a hole is written; it does not spoil an ear.
    corner = (others == a).all(axis=1) | (others == b).all(axis=1) | (others == c).all(axis=1)
    return not (inside & ~corner).any()


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
