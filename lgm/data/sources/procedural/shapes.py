"""A generator of single shapes: which form, of which proportions, deformed or not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from lgm.data.sources.procedural import deformations, profiles, tubes
from lgm.data.sources.procedural.draws import log_uniform
from lgm.data.sources.procedural.forms import (
    blob,
    box,
    extrusion,
    height_field,
    lathe,
    rounded_box,
    superquadric,
)
from lgm.data.sources.procedural.solids import Solid


def _box(rng: Generator) -> Solid:
    return box()


def _rounded_box(rng: Generator) -> Solid:
    return rounded_box(rng.uniform(0.08, 0.5))


def _superquadric(rng: Generator) -> Solid:
    return superquadric(*np.exp(rng.uniform(np.log(0.25), np.log(1.7), 2)))


def _ellipsoid(rng: Generator) -> Solid:
    return superquadric(1.0, 1.0)


def _blob(rng: Generator) -> Solid:
    return blob(rng, rng.uniform(0.1, 0.55), rng.random() < 0.3)


def _turned(rng: Generator) -> Solid:
    is_flat = rng.random() < 0.12
    return lathe(profiles.turned_profile(rng), int(rng.integers(5, 9)) if is_flat else 40, is_flat)


def _vessel(rng: Generator) -> Solid:
    return lathe(profiles.vessel_profile(rng))


def _cone(rng: Generator) -> Solid:
    is_flat = rng.random() < 0.25
    return lathe(profiles.cone_profile(rng), int(rng.integers(3, 9)) if is_flat else 40, is_flat)


def _ring(rng: Generator) -> Solid:
    return lathe(profiles.ring_profile(rng))


def _extrusion(rng: Generator) -> Solid:
    outline, is_smooth = profiles.outline(rng)
    rows = 12
    heights = np.linspace(-1, 1, rows) * log_uniform(rng, 0.2, 1.8)
    scales, turns = np.ones(rows), np.zeros(rows)
    if rng.random() < 0.35:
        scales = np.interp(np.linspace(0, 1, rows), [0, 0.5, 1], rng.uniform(0.4, 1.0, 3))
    if rng.random() < 0.3:
        turns = np.linspace(0, rng.uniform(-2.0, 2.0), rows)
    return extrusion(outline, is_smooth, heights, scales, turns)


def _height_field(rng: Generator) -> Solid:
    return height_field(rng, rng.uniform(0.1, 0.4), log_uniform(rng, 0.04, 0.5))


def _tube(rng: Generator) -> Solid:
    curve, closed = profiles.path(rng)
    thickness = log_uniform(rng, 0.05, 0.25)
    radii = np.full(len(curve), thickness)
    if not closed and rng.random() < 0.5:
        radii = thickness * np.linspace(1, rng.uniform(0.2, 1), len(curve))
    return tubes.tube(curve, radii, closed, flatness=rng.choice([1.0, 1.0, 0.3]))


def _wire_frame(rng: Generator) -> Solid:
    nodes, edges = tubes.polyhedron(rng) if rng.random() < 0.6 else tubes.lattice(rng)
    # Of the shortest edge: bars that are thicker would close the frame.
    spacing = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1).min()
    radius = spacing * log_uniform(rng, 0.025, 0.12)
    return tubes.frame(nodes, edges, radius, int(rng.choice([4, 6, 8])), rng.choice([1.0, 1.5, 2.5]))


COMPACT: dict[str, Callable[[Generator], Solid]] = {
    "box": _box,
    "rounded box": _rounded_box,
    "superquadric": _superquadric,
    "ellipsoid": _ellipsoid,
    "blob": _blob,
    "turned": _turned,
    "cone": _cone,
    "extrusion": _extrusion,
}
HOLLOW: dict[str, Callable[[Generator], Solid]] = {
    "vessel": _vessel,
    "ring": _ring,
    "height field": _height_field,
    "tube": _tube,
    "wire frame": _wire_frame,
}
_ALL = {**COMPACT, **HOLLOW}


def compact(rng: Generator) -> Solid:
    """A shape that fills much of its box, [-1, 1] along its longest side."""
    return _unit(COMPACT[str(rng.choice(list(COMPACT)))](rng))


def any_shape(rng: Generator) -> Solid:
    """Any shape, [-1, 1] along its longest side."""
    return _unit(_ALL[str(rng.choice(list(_ALL)))](rng))


def hollow(rng: Generator) -> Solid:
    """A shape with holes, hollows or thin walls, [-1, 1] along its longest side."""
    return _unit(HOLLOW[str(rng.choice(list(HOLLOW)))](rng))


def proportioned(solid: Solid, rng: Generator, most: float = 4.0) -> Solid:
    """Stretched along the axes, up to `most` times, and bent, twisted or tapered now and then."""
    low, high = solid.vertices.min(0), solid.vertices.max(0)
    # Each axis from 1 / sqrt(most) to sqrt(most), so that two of them differ `most` times at the farthest.
    stretch = np.exp(rng.uniform(-1, 1, 3) * np.log(most) / 2)
    solid = _unit(solid.fitted((high - low) * stretch))
    if rng.random() < 0.3:
        half = np.abs(solid.vertices).max(0)
        solid = _unit(solid.bent(deformations.random_map(rng, max(half[1], 0.05), max(half[0], half[2]))))
    return solid


def _unit(solid: Solid) -> Solid:
    """Centred on the origin and scaled to [-1, 1] along the longest side."""
    low, high = solid.vertices.min(0), solid.vertices.max(0)
    scale = 2 / (high - low).max()
    return solid.moved(np.eye(3) * scale, -(low + high) / 2 * scale)
