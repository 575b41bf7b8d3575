"""Tubes along curves, and frames of straight bars: wire frames of polyhedra, lattices, cages."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator

from lgm.data.sources.procedural.forms import over_cube
from lgm.data.sources.procedural.solids import Solid, copies, joined, patch


def tube(
    curve: Float[np.ndarray, "n 3"],
    radii: Float[np.ndarray, " n"],
    closed: bool,
    around: int = 10,
    flatness: float = 1.0,
) -> Solid:
    """A tube along a curve; open ends are rounded.

    closed: the last point repeats the first one. flatness: of its cross section, 1 for a circle.
    """
    tangents, normals = _frames(curve, closed)
    if not closed:  # rows of shrinking radius beyond the ends
        # Half an ellipsoid at each end.
        steps = np.sin(np.linspace(0, 1, 4)[1:] * np.pi / 2)
        shrink = np.sqrt(np.maximum(1 - steps**2, 0.0))
        before = curve[0] - tangents[0] * radii[0] * steps[::-1, None]
        after = curve[-1] + tangents[-1] * radii[-1] * steps[:, None]
        curve = np.concatenate([before, curve, after])
        radii = np.concatenate([radii[0] * shrink[::-1], radii, radii[-1] * shrink])
        tangents, normals = (
            np.concatenate([np.repeat(x[:1], 3, 0), x, np.repeat(x[-1:], 3, 0)]) for x in (tangents, normals)
        )
    binormals = np.cross(tangents, normals)
    angles = np.linspace(0, 2 * np.pi, around + 1)
    ring = np.stack([np.cos(angles), np.sin(angles) * flatness], -1)
    ring[-1] = ring[0]
    across = ring[None, :, :1] * normals[:, None] + ring[None, :, 1:] * binormals[:, None]
    grid = curve[:, None] + radii[:, None, None] * across
    if closed:
        grid[-1] = grid[0]
    return joined([patch(grid, closed_rows=closed, closed_columns=True)])


def _frames(curve: np.ndarray, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Tangents and normals that turn no more than they must (parallel transport), [n, 3] each."""
    if closed:
        steps = np.roll(curve[:-1], -1, 0) - np.roll(curve[:-1], 1, 0)
        tangents = np.concatenate([steps, steps[:1]])
    else:
        tangents = np.gradient(curve, axis=0)
    tangents = tangents / np.maximum(np.linalg.norm(tangents, axis=1, keepdims=True), 1e-9)
    # The axis that is least along the curve: any start will do, but a parallel one.
    normal = np.eye(3)[np.abs(tangents[0]).argmin()]
    normals = np.empty_like(tangents)
    for i, tangent in enumerate(tangents):
        normal = normal - tangent * (normal @ tangent)
        length = np.sqrt(normal @ normal)
        normal = normal / length if length > 1e-6 else np.eye(3)[np.abs(tangent).argmin()]
        normals[i] = normal
    if closed:  # the twist that is left after one round is spread over all of it
        cosine = normals[-1] @ normals[0]
        sine = np.cross(normals[-1], normals[0]) @ tangents[0]
        angles = np.arctan2(sine, cosine) * np.linspace(0, 1, len(curve))[:, None]
        normals = np.cos(angles) * normals + np.sin(angles) * np.cross(tangents, normals)
    return tangents, normals


def frame(
    nodes: Float[np.ndarray, "k 3"],
    edges: Int[np.ndarray, "e 2"],
    radius: float,
    sides: int = 6,
    joint: float = 1.0,
) -> Solid:
    """Bars between nodes, with joints at the nodes that are `joint` times as thick; one texture for all."""
    a, b = nodes[edges[:, 0]], nodes[edges[:, 1]]
    along = b - a
    length = np.linalg.norm(along, axis=1)
    along = along / length[:, None]
    # An axis that is not parallel to the bar, for its two cross directions.
    helper = np.eye(3)[np.abs(along).argmin(1)]
    right = np.cross(helper, along)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    linear = np.stack([right * radius, along * length[:, None] / 2, np.cross(right, along) * radius], -1)
    bars = copies(_bar(sides), linear, (a + b) / 2)
    balls = copies(_joint(), np.tile(np.eye(3) * radius * joint, (len(nodes), 1, 1)), nodes)
    # Joints are of the bars' colour: the texture is painted for these alone.
    return joined([bars, replace(balls, charts=())])


def _bar(sides: int) -> Solid:
    angles = np.linspace(0, 2 * np.pi, sides + 1) + np.pi / sides
    ring = np.stack([np.sin(angles), np.cos(angles)], -1)
    ring[-1] = ring[0]
    rows = np.array([[0, 1.0], [1, 1], [1, 1], [1, -1], [1, -1], [0, -1]])
    grid = np.empty((6, sides + 1, 3))
    grid[..., ::2] = rows[:, None, :1] * ring
    grid[..., 1] = rows[:, 1:]
    return joined([patch(grid, (0.0, 0.0, 1.0, 0.8), closed_columns=sides > 4, is_flat=sides <= 4)])


def _joint() -> Solid:
    def move(points: np.ndarray) -> np.ndarray:
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    return over_cube(move, 3)


def polyhedron(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and edges of a regular solid, a prism or an antiprism."""
    kind = rng.integers(6)
    golden = (1 + 5**0.5) / 2
    if kind == 0:
        nodes = np.array(list(product((-1, 1), repeat=3)), float)
    elif kind == 1:
        nodes = np.concatenate([np.eye(3), -np.eye(3)])
    elif kind == 2:
        nodes = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)], float)
    elif kind == 3:
        flat = [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
        nodes = np.array([np.roll(x, k) for x in flat for k in range(3)], float)
    else:
        return _prism(int(rng.integers(3, 9)), bool(kind == 4))
    apart = np.linalg.norm(nodes[:, None] - nodes[None], axis=-1)
    nearest = apart[apart > 1e-6].min()
    # Edges of a regular solid join the nodes at the smallest distance.
    i, j = np.nonzero(np.triu(np.abs(apart - nearest) < 1e-6))
    return nodes / np.linalg.norm(nodes[0]), np.stack([i, j], -1)


def _prism(sides: int, is_straight: bool) -> tuple[np.ndarray, np.ndarray]:
    k = np.arange(sides)
    lower, upper = 2 * np.pi * k / sides, 2 * np.pi * (k + (0 if is_straight else 0.5)) / sides
    ring = [np.stack([np.cos(x), np.full(sides, y), np.sin(x)], -1) for x, y in ((lower, -0.8), (upper, 0.8))]
    after = (k + 1) % sides
    edges = [(k, after), (k + sides, after + sides), (k, k + sides)]
    if not is_straight:
        edges.append((after, k + sides))
    return np.concatenate(ring), np.concatenate([np.stack(x, -1) for x in edges])


def lattice(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and edges of a block of cells: a grille, a scaffold, a climbing frame."""
    counts = rng.integers(1, 5, 3)
    if rng.random() < 0.5:
        counts[rng.integers(3)] = 0  # a grille
    if (counts == 0).all() or counts.sum() == counts.max():
        counts[:2] = np.maximum(counts[:2], 2)
    shape = counts + 1
    index = np.arange(shape.prod()).reshape(shape)
    nodes = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, 3)
    edges = [
        np.stack([np.take(index, range(n - 1), k).ravel(), np.take(index, range(1, n), k).ravel()], -1)
        for k, n in enumerate(shape)
        if n > 1
    ]
    all_edges = np.concatenate(edges)
    if rng.random() < 0.3:  # some bars are missing
        all_edges = all_edges[rng.random(len(all_edges)) < 0.8]
    used = np.unique(all_edges)
    centered = (nodes - counts / 2) / max(1, counts.max()) * 2
    renumbered = np.searchsorted(used, all_edges)
    return centered[used], renumbered
