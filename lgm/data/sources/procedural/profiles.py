"""Generator curves: profiles for the lathe, outlines for extrusions, paths for tubes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy.random import Generator


def smooth_curve(knots: Float[np.ndarray, "k d"], count: int, closed: bool = False) -> np.ndarray:
    """Catmull-Rom spline through knots, [count, d]; a closed one ends where it begins."""
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    segments = len(padded) - 3
    at = np.linspace(0, segments, count)
    i = np.minimum(at.astype(int), segments - 1)
    t = (at - i)[:, None]
    # The uniform Catmull-Rom basis (Catmull and Rom 1974): the curve passes through its knots.
    p0, p1, p2, p3 = (padded[i + k] for k in range(4))
    return 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )


def with_edges(points: Float[np.ndarray, "n d"], steps: int = 1) -> np.ndarray:
    """A polyline whose inner corners are hard: each stands twice; `steps` pieces between two of them."""
    pieces = [a + (b - a) * np.linspace(0, 1, steps + 1)[:, None] for a, b in pairwise(points)]
    return np.concatenate(pieces)


def turned_profile(rng: Generator) -> np.ndarray:
    """Radius and height from the bottom to the top of something turned: a vase, a bottle, a spindle."""
    kind = rng.integers(5)
    count = int(rng.integers(4, 8))
    heights = np.linspace(-1, 1, count)
    radii = rng.uniform(0.25, 1.0, count)
    if kind == 0:  # a few smooth bulges
        return _above_axis(smooth_curve(np.stack([radii, heights], -1), 28))
    if kind == 1:  # steps with hard edges
        edges = np.sort(rng.uniform(-1, 1, count - 1))
        edges = np.concatenate([[-1.0], edges, [1.0]])
        steps = [(r, h) for r, a, b in zip(radii, edges[:-1], edges[1:], strict=True) for h in (a, b)]
        return with_edges(np.array(steps), 2)
    if kind == 2:  # beads on a spindle
        h = np.linspace(-1, 1, 48)
        beads = np.abs(np.sin((h + 1) * np.pi / 2 * rng.integers(2, 6)))
        return np.stack([0.25 + 0.6 * beads * np.interp(h, heights, radii), h], -1)
    if kind == 3:  # slanted pieces with hard edges
        return with_edges(np.stack([radii, heights], -1), 3)
    radii[-1] = 0.0  # closed smoothly at the top
    radii[0] = rng.uniform(0.3, 0.9)
    return _above_axis(smooth_curve(np.stack([radii, heights], -1), 28))


def vessel_profile(rng: Generator) -> np.ndarray:
    """Of a cup, bowl or pot: up the outside, over a thin rim and down the inside to the axis."""
    count = int(rng.integers(3, 6))
    heights = np.linspace(-1, 1, count)
    radii = np.sort(rng.uniform(0.35, 1.0, count))
    if rng.random() < 0.4:
        rng.shuffle(radii)
    wall = rng.uniform(0.04, 0.12)
    outside = smooth_curve(np.stack([radii, heights], -1), 22)
    outside[:, 0] = np.maximum(outside[:, 0], 2.2 * wall)
    outside[:, 1] = np.clip(outside[:, 1], -1, 1)
    inside = outside[::-1] - [wall, 0.0]
    floor = -1 + 1.5 * wall
    inside = inside[inside[:, 1] > floor]
    bottom = np.array([[inside[-1, 0], floor], [inside[-1, 0], floor], [0.0, floor]])
    return np.concatenate([outside, outside[-1:], inside[:1], inside, bottom])


def cone_profile(rng: Generator) -> np.ndarray:
    """Cylinders, cones and frustums."""
    top = rng.choice([0.0, rng.uniform(0.2, 0.9), 1.0])
    return np.linspace([1.0, -1.0], [top, 1.0], 8)


def ring_profile(rng: Generator) -> np.ndarray:
    """A closed cross section off the axis: torus, tyre, washer."""
    radius, width = rng.uniform(0.15, 0.4), rng.uniform(0.5, 2.0)
    angles = np.linspace(0, -2 * np.pi, 21)
    power = rng.choice([0.4, 1.0, 1.0])
    x, y = np.cos(angles), np.sin(angles)
    # A superellipse: powers below 1 make it square.
    x, y = np.sign(x) * np.abs(x) ** power, np.sign(y) * np.abs(y) ** power
    profile = np.stack([1 - radius + radius * x, radius * width * y], -1)
    profile[-1] = profile[0]
    return profile


def outline(rng: Generator) -> tuple[np.ndarray, bool]:
    """A closed outline [n, 2] that is visible from the origin, and whether it is smooth where it closes."""
    kind = rng.integers(6)
    if kind == 0:  # a regular polygon
        sides = int(rng.integers(3, 9))
        angles = np.arange(sides + 1) * 2 * np.pi / sides + np.pi / sides
        return with_edges(_around(np.ones(sides + 1), angles), 3), False
    if kind in (1, 2):  # a star or a cogwheel
        tips = int(rng.integers(3, 13))
        inner = rng.uniform(0.35, 0.85)
        pattern = [1.0, inner] if kind == 1 else [1.0, 1.0, inner, inner]
        radii = np.tile(pattern, tips)
        angles = (np.arange(len(radii)) + 0.5) * 2 * np.pi / len(radii)
        points = _around(radii, angles)
        return with_edges(np.concatenate([points, points[:1]])), False
    if kind == 3:  # a cross, a T or an L
        return with_edges(_girder(rng), 2), False
    angles = np.linspace(0, 2 * np.pi, 49)
    radii = np.ones(49)
    for wave in range(2, 6):  # flowers and pebbles
        if kind == 5:
            radii += rng.normal(0, 0.22 / wave) * np.cos(wave * angles + rng.uniform(0, 6.28))
    if kind == 4:
        waves, strength = int(rng.integers(2, 9)), rng.uniform(0.08, 0.3)
        radii += strength * np.cos(waves * angles)
    return _around(np.maximum(radii, 0.3), angles), True


def path(rng: Generator) -> tuple[np.ndarray, bool]:
    """A curve [n, 3] for a tube, and whether it is closed."""
    kind = rng.integers(6)
    t = np.linspace(0, 1, 64)
    if kind == 0:  # a helix
        turns, radius = rng.uniform(1.5, 5), 1 - rng.uniform(0, 0.7) * t
        angle = 2 * np.pi * turns * t
        return np.stack([radius * np.cos(angle), 2.4 * t - 1.2, radius * np.sin(angle)], -1), False
    if kind == 1:  # a torus knot
        # Times around the axis, and around the ring; without a common divisor the curve is one closed line.
        p, q = [(2, 3), (3, 2), (2, 5), (1, 4)][rng.integers(4)]
        angle = 2 * np.pi * np.linspace(0, 1, 121)
        ring = 1 + 0.4 * np.cos(q * angle)
        curve = np.stack([ring * np.cos(p * angle), 0.5 * np.sin(q * angle), ring * np.sin(p * angle)], -1)
        curve[-1] = curve[0]
        return curve, True
    if kind == 2:  # an arch
        angle = np.pi * rng.uniform(0.6, 1.7) * (t - 0.5)
        return np.stack([np.sin(angle), np.cos(angle), 0 * t], -1), False
    if kind == 3:  # a wavy ring
        angle = 2 * np.pi * np.linspace(0, 1, 81)
        height = rng.uniform(0, 0.4) * np.sin(int(rng.integers(2, 6)) * angle)
        curve = np.stack([np.cos(angle), height, np.sin(angle)], -1)
        curve[-1] = curve[0]
        return curve, True
    closed = kind == 4
    knots = rng.uniform(-1, 1, (int(rng.integers(4, 7)), 3))
    return smooth_curve(knots, 72, closed), closed


def _girder(rng: Generator) -> np.ndarray:
    """The cross section of a girder: a rectangle about the origin with arms."""
    a, b = rng.uniform(0.15, 0.4, 2)
    arms = rng.random(4) < 0.65
    arms[rng.integers(4)] = True
    right, up, left, down = np.where(arms, 1.0, [a, b, a, b])
    corners = [
        (right, -b), (right, b), (a, b), (a, up), (-a, up), (-a, b), (-left, b), (-left, -b), (-a, -b),
        (-a, -down), (a, -down), (a, -b), (right, -b),
    ]  # fmt: skip
    points = np.array(corners)
    kept = np.append(True, np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-9)
    return points[kept]


def _around(radii: np.ndarray, angles: np.ndarray) -> np.ndarray:
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], -1)
    if abs(angles[-1] - angles[0] - 2 * np.pi) < 1e-9:
        points[-1] = points[0]
    return points


def _above_axis(profile: np.ndarray) -> np.ndarray:
    """Splines overshoot: no radius below 0, and none at it but at an end on the axis."""
    profile[1:-1, 0] = np.maximum(profile[1:-1, 0], 0.05)
    return profile
