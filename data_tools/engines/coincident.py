"""Faces that lie on each other, for a path tracer: a ray that leaves one hits the other where it starts, and
both are black. They are set a little apart, so that the same one is seen as in the OpenGL engine."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data_tools.meshes.normals import face_normals
from data_tools.meshes.surfaces import Surface

# Between two layers; an object is 1.2 long. Far above what float32 rounds, far below a pixel.
LAYER = 2e-5
# Planes are the same whose normals and distances from the middle round to the same of these.
_NORMAL_STEP, _DISTANCE_STEP = 1e-3, 1e-4
_MAX_NEIGHBOURS = 512  # triangles of one plane, in the order of their left ends
_MAX_LAYERS = 50  # a hundred sheets on each other are still thinner than a pixel of 512


def set_apart(surfaces: list[Surface]) -> int:
    """Move what overlaps in one plane, in place, and count the triangles that were moved.

    Of two that face the same side the later one of the file lies behind, of two that face opposite sides each
    is seen from its own. surfaces: centred on the origin, of a size about 1.
    """
    if not surfaces:
        return 0
    positions = np.concatenate([surface.positions for surface in surfaces])
    shift = _shifts(positions)
    moved = np.flatnonzero(np.abs(shift).max(axis=1) > 0)
    ends = np.cumsum([surface.num_triangles for surface in surfaces])
    for surface, first, end in zip(surfaces, ends - [s.num_triangles for s in surfaces], ends, strict=True):
        if shift[first:end].any():
            surface.positions = surface.positions + shift[first:end, None]
    return len(moved)


def _shifts(positions: Float[np.ndarray, "F 3 3"]) -> Float[np.ndarray, "F 3"]:
    """How far each triangle is to be moved."""
    normals = face_normals(positions)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    pairs = _overlapping(positions, normals)
    shift = np.zeros((len(positions), 3))
    if not len(pairs):
        return shift
    same_side = (normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(axis=1) > 0
    layers = _layers(pairs[same_side], len(positions))
    links = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(positions),) * 2)
    _, component = connected_components(links, directed=False)
    # Back to back, both sides lie before the plane that they share; else the first stays where it is.
    deepest = np.zeros(component.max() + 1, dtype=np.int64)
    np.maximum.at(deepest, component, layers)
    is_mixed = np.zeros(component.max() + 1, dtype=bool)
    is_mixed[component[pairs[~same_side].ravel()]] = True
    before = np.where(is_mixed[component], deepest[component] + 1, 0)
    return (before - layers)[:, None] * LAYER * normals


def _layers(pairs: np.ndarray, count: int) -> np.ndarray:
    """[count]: 0 for what nothing earlier covers, else one more than the deepest earlier one."""
    layers = np.zeros(count, dtype=np.int64)
    for earlier, later in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
        layers[later] = min(max(layers[later], layers[earlier] + 1), _MAX_LAYERS)
    return layers


def _overlapping(positions: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """[P, 2] pairs, the earlier first, of triangles that lie in one plane and share some of its area."""
    axis = np.abs(normals).argmax(axis=1)
    sign = np.sign(np.take_along_axis(normals, axis[:, None], axis=1))
    distance = (positions[:, 0] * normals * sign).sum(axis=1)
    plane = np.concatenate([normals * sign / _NORMAL_STEP, distance[:, None] / _DISTANCE_STEP], axis=1)
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for offset in (0.0, 0.5):  # twice, because what is nearly equal may round apart
        keys = np.concatenate([axis[:, None], np.floor(plane + offset)], axis=1).astype(np.int64)
        pairs.append(_of_equal_keys(positions, keys, axis))
    return np.unique(np.concatenate(pairs), axis=0)


def _of_equal_keys(positions: np.ndarray, keys: np.ndarray, axis: np.ndarray) -> np.ndarray:
    others = np.stack([(axis + 1) % 3, (axis + 2) % 3], axis=1)[:, None]
    flat = np.take_along_axis(positions, np.broadcast_to(others, (len(others), 3, 2)), axis=2)  # [F, 3, 2]
    low, high = flat.min(axis=1), flat.max(axis=1)
    order = np.lexsort((low[:, 0], *keys.T))
    is_new = np.append(True, (keys[order[1:]] != keys[order[:-1]]).any(axis=1))
    group = np.cumsum(is_new)
    active = np.arange(len(order))
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for step in range(1, _MAX_NEIGHBOURS):
        active = active[active + step < len(order)]
        one, two = order[active], order[active + step]
        near = (group[active] == group[active + step]) & (low[two, 0] < high[one, 0])
        active, one, two = active[near], one[near], two[near]
        if not len(active):
            break
        beside = (low[two, 1] < high[one, 1]) & (low[one, 1] < high[two, 1])
        one, two = one[beside], two[beside]
        share = _share_area(flat[one], flat[two])
        pairs.append(np.sort(np.stack([one[share], two[share]], axis=1), axis=1))
    return np.concatenate(pairs)


def _share_area(one: Float[np.ndarray, "P 3 2"], two: Float[np.ndarray, "P 3 2"]) -> np.ndarray:
    """[P]: whether no edge of either triangle parts the two (the separating axis theorem)."""
    apart = np.zeros(len(one), dtype=bool)
    for triangle in (one, two):
        edges = np.roll(triangle, -1, axis=1) - triangle
        across = np.stack([-edges[..., 1], edges[..., 0]], axis=-1)
        across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-300)
        a, b = (np.einsum("pec,pvc->pev", across, points) for points in (one, two))
        # Neighbours share an edge, but for what files round.
        gap = np.maximum(b.min(axis=-1) - a.max(axis=-1), a.min(axis=-1) - b.max(axis=-1))
        apart |= (gap > -1e-5).any(axis=1)
    return ~apart
