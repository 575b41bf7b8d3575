"""Normals for files that have none: smooth over round parts, sharp at edges."""

from __future__ import annotations

import numpy as np

CREASE_ANGLE_DEG = 45.0
# A fan's hub can have thousands of triangles; beyond this many neighbours the mean is used.
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
    # In single precision, and small integers: of millions of triangles these arrays are the largest of all.
    weighted = face_normals(positions)
    length = np.linalg.norm(weighted, axis=1, keepdims=True)
    unit = (weighted / np.maximum(length, 1e-300)).astype(np.float32)
    weighted = (weighted / max(float(length.max(initial=0.0)), 1e-300)).astype(np.float32)
    order, run_end = _group_by_position(positions.reshape(-1, 3))
    faces = (order // 3).astype(np.int32)
    total = weighted[faces]
    min_cosine = np.cos(np.deg2rad(crease_angle_deg))
    active = np.arange(len(order), dtype=np.int32)
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
    low = points.min(axis=0)
    extent = max(float((points.max(axis=0) - low).max()), 1e-300)
    cells = (np.round((points[:, k] - low[k]) / (extent * 1e-6)).astype(np.int64) for k in range(3))
    key = next(cells)  # of 20 bits each
    for cell in cells:
        key = (key << 21) | cell
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    ends = np.append(starts[1:], len(order)).astype(np.int32)
    return order.astype(np.int32), np.repeat(ends, np.diff(starts, append=len(order)))


def usable_normals(normals: np.ndarray | None) -> bool:
    """Whether a file's normals can be used: all finite, none of zero length."""
    if normals is None:
        return False
    length = np.linalg.norm(normals, axis=-1)
    return bool(np.isfinite(length).all() and (length > 1e-12).all())
