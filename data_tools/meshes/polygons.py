"""Polygons to triangles: a fan where that is right, ear clipping (mapbox_earcut) where one is concave."""

from __future__ import annotations

import mapbox_earcut
import numpy as np

_AT_ONCE = 1 << 17  # polygons; several arrays of their corners are held at a time


def triangulate(corners: np.ndarray, sizes: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Corner indices of triangles.

    corners: [C] vertex index of each corner, polygon after polygon.
    sizes: [P] number of corners of each polygon; what has fewer than three has no triangle.
    positions: [V, 3].
    Returns [F, 3] indices into `corners`.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    triangles = []
    for size in np.unique(sizes[sizes >= 3]):
        members = starts[sizes == size][:, None] + np.arange(size)  # [P of this size, size]
        if size == 3:
            triangles.append(members)
            continue
        for first in range(0, len(members), _AT_ONCE):
            some = members[first : first + _AT_ONCE]
            points = positions[corners[some]]
            # At a vertex that is NaN no polygon has a shape; its triangles are left out later.
            fanned = _is_convex(points) | ~np.isfinite(points).all(axis=(1, 2))
            triangles.append(some[fanned][:, _fan(size)].reshape(-1, 3))
            triangles.append(_concave(some[~fanned], points[~fanned]))
    return np.concatenate(triangles) if triangles else np.zeros((0, 3), dtype=np.int64)


def _fan(size: int) -> np.ndarray:
    return np.array([[0, i, i + 1] for i in range(1, size - 1)])


def _concave(members: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[F, 3] of concave polygons of one size; members: [P, n]; points: [P, n, 3]."""
    num_polygons, size = members.shape
    if num_polygons == 0:
        return np.zeros((0, 3), dtype=np.int64)
    if size == 4:
        # Both triangles of a concave quadrilateral meet at its reflex corner: a fan from there.
        first = _turns(points).argmin(axis=1)
        rolled = np.take_along_axis(members, (first[:, None] + np.arange(4)) % 4, axis=1)
        return rolled[:, _fan(4)].reshape(-1, 3)
    flat = np.ascontiguousarray(_flatten(points))
    end = np.array([size], dtype=np.uint32)
    triangles = []
    for polygon, outline in zip(members, flat, strict=True):
        corners = mapbox_earcut.triangulate_float64(outline, end).reshape(-1, 3)
        # A polygon without an area in its own plane has no ear.
        triangles.append(polygon[corners if len(corners) else _fan(size)])
    return np.concatenate(triangles)


def _polygon_normals(points: np.ndarray) -> np.ndarray:
    """Newell's normals of polygons [P, n, 3]: right for concave and slightly bent ones too."""
    # From the first corner: far from the origin products of coordinates would cancel to noise.
    points = points - points[:, :1]
    return np.cross(points, np.roll(points, -1, axis=1)).sum(axis=1)


def _turns(points: np.ndarray) -> np.ndarray:
    """[P, n]: how far each corner turns about the polygon's normal; negative where it is reflex."""
    before = points - np.roll(points, 1, axis=1)
    after = np.roll(points, -1, axis=1) - points
    return np.einsum("pnc,pc->pn", np.cross(before, after), _polygon_normals(points))


def _is_convex(points: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        turns = _turns(points)
        # A star turns one way at each corner too, but more than once around.
        scale = np.abs(turns).max(axis=1, keepdims=True)
        return (turns >= -1e-6 * scale).all(axis=1) & (_winding(points) < 1.5)


def _winding(points: np.ndarray) -> np.ndarray:
    """[P]: how often each polygon's edges turn around."""
    flat = _flatten(points)
    edges = np.roll(flat, -1, axis=1) - flat
    ahead = np.roll(edges, -1, axis=1)
    cross = edges[..., 0] * ahead[..., 1] - edges[..., 1] * ahead[..., 0]
    return np.arctan2(cross, (edges * ahead).sum(axis=-1)).sum(axis=1) / (2 * np.pi)


def _flatten(points: np.ndarray) -> np.ndarray:
    """Polygons [P, n, 3] along the main axis of their planes [P, n, 2], counter-clockwise."""
    normals = _polygon_normals(points)
    axis = np.abs(normals).argmax(axis=1)
    kept = np.stack([(axis + 1) % 3, (axis + 2) % 3], axis=1)[:, None]  # [P, 1, 2]
    flat = np.take_along_axis(points - points[:, :1], kept, axis=2)
    mirrored = np.take_along_axis(normals, axis[:, None], axis=1) < 0  # [P, 1]
    return flat * np.stack([np.where(mirrored, -1.0, 1.0), np.ones_like(mirrored, float)], axis=-1)
