"""Assemblies of shapes: heaps, stacks, legs, shelves, branches, mirrored and rotated copies, booleans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from lgm.data.sources.procedural import deformations, shapes, tubes
from lgm.data.sources.procedural.booleans import Surface, combined
from lgm.data.sources.procedural.colors import palette
from lgm.data.sources.procedural.draws import log_uniform, rotation, turn_y
from lgm.data.sources.procedural.forms import box, rounded_box
from lgm.data.sources.procedural.painting import style
from lgm.data.sources.procedural.patterns import Pattern
from lgm.data.sources.procedural.profiles import smooth_curve
from lgm.data.sources.procedural.solids import Solid

# Textures of an object: each takes memory and time to paint.
_MOST_SKINS = 10


@dataclass
class Design:
    """An object while it is made.

    skins: a shape with its pattern for each texture. solids: each with the number of its skin. surfaces:
    what booleans have made.
    """

    rng: Generator
    skins: list[tuple[Solid, Pattern]] = field(default_factory=list)
    solids: list[tuple[Solid, int]] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._palette = palette(self.rng)
        self._styles = [style(self.rng, self._palette) for _ in range(int(self.rng.integers(1, 4)))]

    def skin(self, solid: Solid) -> int:
        """A texture for a shape, in one of the object's few styles or a new one."""
        if len(self.skins) >= _MOST_SKINS:
            return int(self.rng.integers(_MOST_SKINS))
        rng = self.rng
        pattern = self._styles[rng.integers(len(self._styles))]
        if rng.random() < 0.3:
            pattern = style(rng, self._palette)
        self.skins.append((solid, pattern))
        return len(self.skins) - 1

    def add(self, solid: Solid, skin: int | None = None) -> int:
        """Put a shape into the object; returns the number of its skin."""
        skin = self.skin(solid) if skin is None else skin
        self.solids.append((solid, skin))
        return skin

    def deform(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Apply a map of space to all solids."""
        self.solids = [(solid.bent(change), skin) for solid, skin in self.solids]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner of the box around all solids."""
        every = np.concatenate([solid.vertices for solid, _ in self.solids])
        return every.min(0), every.max(0)


def single(design: Design) -> None:
    """One shape, which fills the image."""
    rng = design.rng
    design.add(shapes.proportioned(shapes.any_shape(rng), rng, 3.0).moved(rotation(rng, 0.4)))


def heap(design: Design) -> None:
    """Two to nine shapes turned anyhow, as in LRM-Zero (Xie et al. 2024), each at the surface of another."""
    rng = design.rng
    for number in range(int(rng.integers(2, 10))):
        solid = shapes.proportioned(shapes.any_shape(rng), rng)
        size = rng.uniform(0.25, 0.9) if number else 0.9
        # Shapes touch, so that the heap is one object and not a cloud of pieces.
        center = _on_surface(rng, design.solids[rng.integers(number)][0]) if number else np.zeros(3)
        design.add(solid.moved(rotation(rng, 0.8) * size, center))


def stack(design: Design) -> None:
    """Shapes one upon the other: lamps, towers, bottles, figures."""
    rng = design.rng
    height = 0.0
    for _ in range(int(rng.integers(2, 7))):
        solid = shapes.compact(rng) if rng.random() < 0.7 else shapes.any_shape(rng)
        tall = log_uniform(rng, 0.08, 1.2)
        width = log_uniform(rng, 0.15, 1.0)
        depth = width if rng.random() < 0.6 else width * rng.uniform(0.5, 1.0)
        solid = solid.fitted([width, tall, depth], [0, height + tall / 2, 0])
        design.add(solid if rng.random() < 0.7 else solid.moved(turn_y(rng.uniform(0, 6.28))))
        height += tall * rng.uniform(0.85, 1.0)


def legged(design: Design) -> None:
    """A body on legs, with a back, arms or a head: furniture, animals, insects."""
    rng = design.rng
    width, depth, thick = rng.uniform(0.6, 1.4), rng.uniform(0.5, 1.0), rng.uniform(0.04, 0.45)
    leg_length, radius = rng.uniform(0.25, 0.9), rng.uniform(0.015, 0.07)
    is_board = rng.random() < 0.5
    body = rounded_box(rng.uniform(0.1, 0.6)) if is_board else shapes.compact(rng)
    inset = 1.0 if is_board else 0.7  # other bodies have no corners for legs to stand under
    design.add(body.fitted([width, thick, depth], [0, leg_length + thick / 2, 0]))
    splay, bend = rng.uniform(0, 0.35), rng.choice([0.0, rng.uniform(0.1, 0.4)])
    pairs = int(rng.choice([2, 2, 2, 3, 4]))
    # All legs share the first one's texture.
    leg: int | None = None
    is_square = bend == 0 and rng.random() < 0.4
    for x in np.linspace(-1, 1, pairs) * (width / 2 - radius) * rng.uniform(0.7, 1.0) * inset:
        for side in (-1, 1):
            top = np.array([x, leg_length + thick / 3, side * (depth / 2 - radius) * inset])
            foot = top * [1 + splay * (x != 0), 0, 1 + splay + bend]
            knee = (top + foot) / 2 + [0, bend * leg_length, side * bend * 0.5]
            if is_square:
                solid = box(2).fitted([2 * radius, 1, 2 * radius], [0, 0.5, 0]).bent(_slanted(foot, top))
            else:
                curve = smooth_curve(np.stack([foot, knee, top]), 14)
                solid = tubes.tube(curve, np.linspace(radius * rng.uniform(0.99, 1), radius * 1.3, 14), False)
            leg = design.add(solid, leg)
    if rng.random() < 0.6:  # a back or a head
        tall = rng.uniform(0.3, 0.9)
        size = [width * rng.uniform(0.3, 1.0), tall, rng.uniform(0.04, 0.4)]
        back = shapes.any_shape(rng).fitted(size, [0, leg_length + thick + tall * 0.45, -depth / 2])
        design.add(back)
    if rng.random() < 0.3:  # arms
        size = [0.08, rng.uniform(0.15, 0.35), depth * 0.8]
        arm = shapes.compact(rng).fitted(size, [width / 2, leg_length + thick + 0.1, 0])
        skin = design.add(arm)
        # The other arm: a mirror image with the same texture.
        design.add(arm.moved(np.diag([-1.0, 1, 1])), skin)


def shelf(design: Design) -> None:
    """Boards and walls: shelves, cupboards, tables, houses; with things in or on them."""
    rng = design.rng
    size = rng.uniform(0.4, 1.4, 3)
    board = rng.uniform(0.02, 0.09)
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    skin: int | None = None
    for y in np.linspace(0, size[1], rows + 1):
        skin = design.add(box(4).fitted([size[0], board, size[2]], [0, y, 0]), skin)
    wall = skin if rng.random() < 0.6 else None
    for x in np.linspace(-0.5, 0.5, columns + 1) * (size[0] - board):
        wall = design.add(box(4).fitted([board, size[1], size[2] * 0.98], [x, size[1] / 2, 0]), wall)
    if rng.random() < 0.6:
        design.add(box(4).fitted([size[0] * 0.99, size[1], board / 2], [0, size[1] / 2, -size[2] / 2]))
    for _ in range(int(rng.integers(0, 5))):
        row, column = rng.integers(rows), rng.integers(columns)
        cell = np.array([size[0] / columns, size[1] / rows, size[2]]) * rng.uniform(0.3, 0.8, 3)
        x = (column + 0.5) / columns * size[0] - size[0] / 2
        y = row * size[1] / rows + board / 2 + cell[1] / 2
        design.add(shapes.compact(rng).fitted(cell, [x, y, 0]))


def branching(design: Design) -> None:
    """Tubes that fork: trees, antlers, corals, spiders' legs."""
    rng = design.rng
    thick, shrink = rng.uniform(0.03, 0.1), rng.uniform(0.6, 0.8)
    forks, depth = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    wild = rng.uniform(0.3, 0.9)
    skin: int | None = None
    tips: list[np.ndarray] = []
    stems = [(np.zeros(3), np.array([0, 1.0, 0]), 0.7, thick)]
    if rng.random() < 0.4:  # from the middle in all directions
        directions = rng.normal(size=(int(rng.integers(4, 9)), 3))
        stems = [(np.zeros(3), d / np.linalg.norm(d), 0.6, thick) for d in directions]
        depth, forks = 2, int(rng.integers(1, 3))
        body = shapes.compact(rng)
        design.add(body.fitted(rng.uniform(0.3, 0.7, 3)))
    for level in range(depth):
        following = []
        for start, direction, length, radius in stems:
            middle = start + direction * length / 2 + rng.normal(0, 0.08, 3) * length
            end = start + direction * length
            curve = smooth_curve(np.stack([start, middle, end]), 8)
            skin = design.add(tubes.tube(curve, np.linspace(radius, radius * shrink, 8), False, 8), skin)
            for _ in range(forks if level + 1 < depth else 0):
                heading = direction + rng.normal(0, wild, 3)
                heading /= np.linalg.norm(heading)
                following.append((end, heading, length * rng.uniform(0.55, 0.9), radius * shrink))
            if level + 1 == depth:
                tips.append(end)
        stems = following
    if rng.random() < 0.6:  # leaves, fruit, hands
        leaf = shapes.compact(rng)
        size = rng.uniform(0.08, 0.4, 3)
        skin = design.skin(leaf)
        for tip in tips:
            design.add(leaf.fitted(size).moved(rotation(rng, 1.0), tip), skin)


def scaffold(design: Design) -> None:
    """Wire frames and lattices, with or without something inside."""
    rng = design.rng
    nodes, edges = tubes.polyhedron(rng) if rng.random() < 0.5 else tubes.lattice(rng)
    stretched = nodes * rng.uniform(0.5, 1.0, 3)
    spacing = np.linalg.norm(stretched[edges[:, 0]] - stretched[edges[:, 1]], axis=1).min()
    radius = spacing * log_uniform(rng, 0.02, 0.1)
    solid = tubes.frame(stretched, edges, radius, int(rng.choice([4, 6, 8])), rng.choice([1.0, 1.6, 2.6]))
    design.add(solid)
    if rng.random() < 0.6:
        inner = shapes.any_shape(rng)
        design.add(inner.moved(rotation(rng, 0.5) * rng.uniform(0.3, 0.7), rng.uniform(-0.2, 0.2, 3)))


def mirrored(design: Design) -> None:
    """A middle and pairs of shapes to its sides: vehicles, faces, figures, aeroplanes."""
    rng = design.rng
    middle = shapes.proportioned(shapes.compact(rng), rng).moved(np.eye(3) * 0.6)
    design.add(middle)
    mirror = np.diag([-1.0, 1.0, 1.0])
    for _ in range(int(rng.integers(1, 5))):
        solid = shapes.proportioned(shapes.any_shape(rng), rng)
        offset = _on_surface(rng, middle) * [rng.uniform(0.9, 1.3), 1, 1]
        placed = solid.moved(rotation(rng, 0.6) * rng.uniform(0.12, 0.5), offset)
        skin = design.add(placed)
        design.add(placed.moved(mirror), skin)


def turned_copies(design: Design) -> None:
    """One shape several times around an axis: wheels, flowers, chandeliers, cogs."""
    rng = design.rng
    count = int(rng.integers(3, 11))
    size = rng.uniform(0.15, 0.6)
    solid = shapes.proportioned(shapes.any_shape(rng), rng).moved(rotation(rng, 0.6) * size)
    away = rng.uniform(0.4, 0.9)
    placed = solid.moved(np.eye(3), [0, rng.uniform(-0.3, 0.3) * away, away])
    skin: int | None = None
    tilt = rotation(rng, 1.0) if rng.random() < 0.4 else np.eye(3)
    for k in range(count):
        skin = design.add(placed.moved(tilt @ turn_y(2 * np.pi * k / count)), skin)
    hub = shapes.proportioned(shapes.any_shape(rng), rng)
    design.add(hub.moved(tilt * away * rng.uniform(0.6, 1.1)))


def cut(design: Design) -> None:
    """Booleans of two to four compact shapes; without manifold3d they are only put together."""
    rng = design.rng
    first = shapes.proportioned(shapes.compact(rng), rng, 2.5)
    solids = [first]
    operation = str(rng.choice(["subtract", "subtract", "subtract", "intersect", "add"]))
    for _ in range(int(rng.integers(1, 4)) if operation != "intersect" else 1):
        solid = shapes.compact(rng) if rng.random() < 0.8 else shapes.any_shape(rng)
        solid = shapes.proportioned(solid, rng, 6.0 if operation == "subtract" else 2.0)
        if operation == "intersect":
            size, center = rng.uniform(0.8, 1.2), rng.uniform(-0.25, 0.25, 3)
        else:
            size, center = rng.uniform(0.35, 1.0), _on_surface(rng, first) * rng.uniform(0.4, 1.0)
        solids.append(solid.moved(rotation(rng, 0.5) * size, center))
    skins = [design.skin(solid) for solid in solids]
    if rng.random() < 0.4:
        skins = [skins[0]] * len(skins)
    surface = combined(operation, solids, skins)
    if surface is None:
        design.add(first, skins[0])
    else:
        design.surfaces.append(surface)


def _on_surface(rng: Generator, solid: Solid) -> np.ndarray:
    """A vertex of a shape."""
    return solid.vertices[rng.integers(len(solid.vertices))]


def _slanted(foot: np.ndarray, top: np.ndarray) -> deformations.Map:
    """Of a leg that stands at the origin, 1 tall."""

    def change(points: np.ndarray) -> np.ndarray:
        t = points[:, 1:2]
        return points * [1, 0, 1] + foot + (top - foot) * t

    return change


# How often an object is of a kind.
ASSEMBLIES: dict[Callable[[Design], None], float] = {
    single: 0.12,
    heap: 0.16,
    stack: 0.12,
    legged: 0.13,
    shelf: 0.08,
    branching: 0.06,
    scaffold: 0.07,
    mirrored: 0.09,
    turned_copies: 0.07,
    cut: 0.10,
}
