"""Where a mesh has its surface, in numbers that tell the same shape again: in other colours, moved, scaled,
mirrored, turned by quarters, or cut into other triangles."""

from __future__ import annotations

from functools import cache
from itertools import permutations, product

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

NODES = 12  # along the longest side of the box
_POINTS = 20_000
# Turning by quarters and mirroring: the 48 ways to place a cube on itself.
_PLACEMENTS = [(axes, signs) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def signature(positions: Float[np.ndarray, "F 3 3"]) -> Float[np.ndarray, "nodes nodes nodes"]:
    """The share of the surface's area near each node of a grid over the mesh's box; it adds up to 1."""
    points, weights = _spread_points(positions)
    low, high = positions.min(axis=(0, 1)), positions.max(axis=(0, 1))
    coordinates = (points - (low + high) / 2) / max((high - low).max(), 1e-300)  # -0.5 to 0.5
    coordinates = np.clip((coordinates + 0.5) * (NODES - 1), 0, NODES - 1)
    base = np.minimum(coordinates.astype(np.int64), NODES - 2)
    fraction = coordinates - base
    grid = np.zeros(NODES**3)
    for corner in product((0, 1), repeat=3):
        share = np.where(corner, fraction, 1 - fraction).prod(axis=1)
        node = np.ravel_multi_index((base + corner).T, (NODES,) * 3)
        grid += np.bincount(node, weights * share, NODES**3)
    return (grid / grid.sum()).reshape((NODES,) * 3).astype(np.float32)


def _spread_points(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 3] all over the surface and the area that each stands for [N]; the same for a triangle
    wherever it stands in the file."""
    edges = positions[:, 1:] - positions[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    count = np.ceil(area / max(area.sum(), 1e-300) * _POINTS).astype(np.int64).clip(min=1)
    triangle = np.repeat(np.arange(len(positions)), count)
    within = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    # A rank-1 lattice (the R2 sequence) in the unit square, folded to the triangle.
    u = (0.5 + within * 0.7548776662466927) % 1
    v = (0.5 + within * 0.5698402909980532) % 1
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    points = positions[triangle, 0] + u[:, None] * edges[triangle, 0] + v[:, None] * edges[triangle, 1]
    return points, (area / count)[triangle]


def distance(a: Float[np.ndarray, "nodes nodes nodes"], b: Float[np.ndarray, "nodes nodes nodes"]) -> float:
    """The share of the surface that lies elsewhere in the other, 0 to 1, placed as fits best."""
    placed = b.reshape(-1)[_placements()]  # [48, nodes^3]
    return float(np.abs(a.reshape(-1) - placed).sum(axis=1).min()) / 2


@cache
def _placements() -> np.ndarray:
    """For each way to place a grid the numbers of its nodes, in order: [48, nodes^3]."""
    numbers = np.arange(NODES**3).reshape((NODES,) * 3)
    turned = [
        numbers.transpose(axes)[tuple(slice(None, None, s) for s in signs)] for axes, signs in _PLACEMENTS
    ]
    return np.stack(turned).reshape(len(_PLACEMENTS), -1)


def near_pairs(signatures: list[np.ndarray], tolerance: float) -> list[tuple[int, int, float]]:
    """All pairs (i < j) at most `tolerance` apart, and their distance: in a set with many like shapes about
    as many as the square of their number. Groups alone: `data_tools.meshes.groups`."""
    if len(signatures) < 2:
        return []
    # Adding up what the placements exchange can only bring two signatures nearer, so that the tree, which
    # holds for any number of meshes, finds every pair and a few more.
    fold = folding()
    folded = np.stack([np.bincount(fold, grid.ravel(), fold.max() + 1) for grid in signatures])
    candidates = cKDTree(folded).query_pairs(2 * tolerance + 1e-6, p=1, output_type="ndarray")
    pairs = []
    for i, j in candidates[np.lexsort(candidates.T[::-1])]:
        apart = distance(signatures[i], signatures[j])
        if apart <= tolerance:
            pairs.append((int(i), int(j), apart))
    return pairs


def folding() -> np.ndarray:
    """For each node the number of its class: nodes that a placement exchanges are of one."""
    index = np.indices((NODES,) * 3).reshape(3, -1)
    inward = np.sort(np.minimum(index, NODES - 1 - index), axis=0)
    return np.unique(np.ravel_multi_index(inward, (NODES,) * 3), return_inverse=True)[1].reshape(-1)
