"""Normals for files that have none: smooth over round parts, sharp at edges."""

from __future__ import annotations

import numpy as np

CREASE_ANGLE_DEG = 45.0
# A fan's hub can have thousands of triangles; past this many neighbours the average stands.
_MAX_NEIGHBOURS = 64


def face_normals(positions: np.ndarray) -> np.ndarray:
    """Of triangles [F, 3, 3]; the length is twice the area, which is the weight for averaging."""
    return np.cross(positions[:, 1] - positions[:, 0], positions[:, 2] - positions[:, 0])


def crease_normals(positions: np.ndarray, crease_angle_deg: float = CREASE_ANGLE_DEG) -> np.ndarray:
    """Corner normals [F, 3, 3]: the area-weighted mean over the triangles that meet at the corner
    and turn from this one by less than the crease angle.

    Triangles with opposite winding count with their normal turned round, so that a mesh whose
    faces point anywhere still shades smoothly.
    """
    weighted = face_normals(positions)
    length = np.linalg.norm(weighted, axis=1, keepdims=True)
    unit = weighted / np.maximum(length, 1e-30)
    face_of_corner = np.repeat(np.arange(len(positions)), 3)
    order, run_end = _group_by_position(positions.reshape(-1, 3))
    faces = face_of_corner[order]
    total = weighted[faces]
    min_cosine = np.cos(np.deg2rad(crease_angle_deg))
    active = np.arange(len(order))
    for step in range(1, _MAX_NEIGHBOURS):
        active = active[active + step < run_end[active]]
        if len(active) == 0:
            break
        mine, other = faces[active], faces[active + step]
        cosine = np.einsum("nc,nc->n", unit[mine], unit[other])
        near = np.abs(cosine) > min_cosine
        here, there, sign = active[near], active[near] + step, np.sign(cosine[near])[:, None]
        # Within one step no corner appears twice on the same side, so plain += adds them all.
        total[here] += sign * weighted[other[near]]
        total[there] += sign * weighted[mine[near]]
    normals = np.empty_like(total)
    normals[order] = total
    return normals.reshape(-1, 3, 3)


def _group_by_position(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order in which equal points stand together, and for each place the end of its run."""
    # Files store a seam's two sides as numbers that may differ in the last digit.
    extent = max(float(np.ptp(points, axis=0).max()), 1e-30)
    keys = np.round(points / (extent * 1e-6)).astype(np.int64)
    order = np.lexsort(keys.T)
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)]))
    ends = np.append(starts[1:], len(order))
    return order, np.repeat(ends, ends - starts)


def usable_normals(normals: np.ndarray | None) -> bool:
    """Whether a file's normals can be used: all finite, none of zero length."""
    if normals is None:
        return False
    length = np.linalg.norm(normals, axis=-1)
    return bool(np.isfinite(length).all() and (length > 1e-12).all())
