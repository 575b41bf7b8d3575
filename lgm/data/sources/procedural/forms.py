"""Closed forms: boxes and superquadrics over a cube's lattice, lathed and extruded profiles, height fields.

Superquadrics: Barr 1981, "Superquadrics and angle-preserving transformations". The lattice is that of a cube
whose points are pushed outwards, so that a box's edges are edges of the mesh and no pole pinches the texture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from lgm.data.sources.procedural.noise import Noise
from lgm.data.sources.procedural.solids import Rect, Solid, joined, patch, planar

# Axes of a cube's faces: outwards, to the right and downwards on the texture.
_CUBE = [
    ((0, 0, 1), (1, 0, 0)), ((1, 0, 0), (0, 0, -1)), ((0, 0, -1), (-1, 0, 0)),
    ((-1, 0, 0), (0, 0, 1)), ((0, 1, 0), (1, 0, 0)), ((0, -1, 0), (1, 0, 0)),
]  # fmt: skip


@lru_cache(maxsize=8)
def _lattice(segments: int) -> tuple[np.ndarray, ...]:
    """Grids [segments + 1, segments + 1, 3] of the cube's faces, evenly spaced as seen from its middle."""
    # Equal angles, not equal lengths: on a sphere the squares are of similar size.
    steps = np.tan(np.linspace(-1, 1, segments + 1) * np.pi / 4)
    right, down = np.meshgrid(steps, steps)
    grids = []
    for normal, along in _CUBE:
        n, a = np.array(normal, float), np.array(along, float)
        grids.append(n + right[..., None] * a + down[..., None] * np.cross(a, n))
    return tuple(grids)


def over_cube(
    move: Callable[[np.ndarray], np.ndarray], segments: int = 12, smooth: bool = True, is_flat: bool = False
) -> Solid:
    """The cube's lattice with its points [n, 3] moved; six charts, three beside and two above each other."""
    patches = []
    for number, grid in enumerate(_lattice(segments)):
        row, column = divmod(number, 3)
        rect = (column / 3, row / 2, (column + 1) / 3, (row + 1) / 2)
        patches.append(patch(move(grid.reshape(-1, 3)).reshape(grid.shape), rect, is_flat=is_flat))
    return joined(patches, smooth=smooth and not is_flat)


def box(segments: int = 6) -> Solid:
    """The cube [-1, 1]³, its faces in `segments`² squares each, so that it can be bent."""
    return over_cube(lambda points: points, segments, smooth=False)


def rounded_box(radius: float) -> Solid:
    """radius: of its edges, 0 to 1."""

    def move(points: np.ndarray) -> np.ndarray:
        core = np.clip(points, radius - 1, 1 - radius)
        away = points - core
        return core + radius * away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)

    def spread(points: np.ndarray) -> np.ndarray:
        # Half of the lattice's lines to the edges, where the surface turns.
        knots, values = [-1, -0.6, 0.6, 1], [-1, radius - 1, 1 - radius, 1]
        return move(np.interp(points, knots, values))

    return over_cube(spread, 10)


def superquadric(east_west: float, north_south: float) -> Solid:
    """Exponents: 0 a box, 1 an ellipsoid, 2 an octahedron; the first of its cross sections in x and z."""

    def move(points: np.ndarray) -> np.ndarray:
        d = np.abs(points) / np.linalg.norm(points, axis=1, keepdims=True)
        x, y, z = d.T
        ring = (x ** (2 / east_west) + z ** (2 / east_west)) ** (east_west / north_south)
        reach = (ring + y ** (2 / north_south)) ** (-north_south / 2)
        return points / np.linalg.norm(points, axis=1, keepdims=True) * reach[:, None]

    return over_cube(move, 14)


def blob(rng: Generator, roughness: float, is_flat: bool) -> Solid:
    """A sphere pushed in and out by noise: pebbles, rocks, potatoes."""
    noise, frequency = Noise(rng), rng.uniform(0.7, 2.2)

    def move(points: np.ndarray) -> np.ndarray:
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        return unit * (1 + roughness * noise.fractal(unit * frequency, 2)[:, None])

    return over_cube(move, 6 if is_flat else 14, is_flat=is_flat)


def lathe(profile: np.ndarray, around: int = 40, is_flat: bool = False) -> Solid:
    """A profile [m, 2] of radius and height, bottom first, turned about the y axis.

    A point that stands twice is a hard edge. An end off the axis gets a flat cap. An ending at the start
    (a closed profile) makes a ring.
    """
    is_ring = bool(np.allclose(profile[0], profile[-1])) and profile[0, 0] > 1e-6
    angles = np.linspace(0, 2 * np.pi, around + 1)
    circle = np.stack([np.sin(angles), np.cos(angles)], -1)
    # Exactly: sine and cosine of 2π are off by rounding, and the seam would be open.
    circle[-1] = circle[0]
    has_caps = not is_ring and bool((profile[[0, -1], 0] > 1e-6).any())
    grid = np.empty((len(profile), around + 1, 3))
    grid[..., ::2] = profile[:, None, :1] * circle
    grid[..., 1] = profile[:, 1:]
    side: Rect = (0.0, 0.0, 1.0, 0.67 if has_caps else 1.0)
    # Rows of the texture run down, rows of the profile up.
    patches = [patch(grid[::-1], side, is_ring, closed_columns=True, is_flat=is_flat)]
    for end, left in ((0, 0.0), (-1, 0.33)):
        radius, height = profile[end]
        if not is_ring and radius > 1e-6:
            cap = _cap(radius * circle, height, (left, 0.67, left + 0.33, 1.0))
            patches.append(cap if end else _turned(cap))
    return joined(patches)


def extrusion(
    outline: np.ndarray,
    closed_smooth: bool,
    heights: np.ndarray,
    scales: np.ndarray,
    turns: np.ndarray,
) -> Solid:
    """An outline [n, 2] in x and z, last point as the first, drawn up along y.

    A point that stands twice is a hard edge; `closed_smooth` says that the first is none. The outline has to
    be visible from its middle. heights, scales, turns: [m], of each row, bottom first.
    """
    cosine, sine = np.cos(turns)[:, None], np.sin(turns)[:, None]
    x = scales[:, None] * (outline[:, 0] * cosine + outline[:, 1] * sine)
    z = scales[:, None] * (outline[:, 1] * cosine - outline[:, 0] * sine)
    grid = np.stack(np.broadcast_arrays(x, heights[:, None], z), -1)
    patches = [patch(grid[::-1], (0.0, 0.0, 1.0, 0.67), closed_columns=closed_smooth)]
    for end, left in ((0, 0.0), (-1, 0.33)):
        cap = _cap(grid[end][:, ::2], heights[end], (left, 0.67, left + 0.33, 1.0))
        patches.append(cap if end else _turned(cap))
    return joined(patches)


def height_field(rng: Generator, amplitude: float, thickness: float) -> Solid:
    """A slab from -1 to 1 in x and z whose upper side is hilly; a thin one's lower side follows it."""
    noise, frequency = Noise(rng), rng.uniform(0.6, 2.0)
    kind, phase = rng.integers(3), rng.uniform(0, 6.28, 2)

    def hills(points: np.ndarray) -> np.ndarray:
        x, z = points[:, 0], points[:, 2]
        if kind == 0:
            return noise.fractal(np.stack([x, 0 * x, z], -1) * frequency, 3)
        if kind == 1:
            return 0.5 * np.sin(3 * frequency * x + phase[0]) * np.sin(3 * frequency * z + phase[1])
        return 0.5 * np.sin(5 * frequency * np.hypot(x - 0.2, z) + phase[0])

    follows = thickness < 0.15

    def move(points: np.ndarray) -> np.ndarray:
        lifted = points * [1.0, thickness, 1.0]
        lift = amplitude * hills(points)
        lifted[:, 1] += lift if follows else np.where(points[:, 1] > 0, lift, 0) * (points[:, 1] + 1) / 2
        return lifted

    return over_cube(move, 20, smooth=False)


def _cap(ring: np.ndarray, height: float, rect: Rect) -> Solid:
    """A flat cap over a ring [n, 2] of x and z, which looks up."""
    steps = np.linspace(0, 1, 4)[:, None, None]
    center = (ring.min(0) + ring.max(0)) / 2 if not _sees(ring, np.zeros(2)) else np.zeros(2)
    flat = center + steps * (ring - center)
    points = np.insert(flat, 1, height, axis=-1)
    low, high = ring.min(0), ring.max(0)
    extent = np.maximum(high - low, 1e-9)
    corners = np.array(
        [[[low[0], height, low[1]], [high[0], height, low[1]]],
         [[low[0], height, high[1]], [high[0], height, high[1]]]]
    )  # fmt: skip
    return planar(points, (flat - low) / extent, rect, corners)


def _sees(ring: np.ndarray, center: np.ndarray) -> bool:
    """Whether the whole ring can be seen from a point within it."""
    a = ring[:-1] - center
    b = ring[1:] - center
    return bool((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] <= 1e-9).all())


def _turned(cap: Solid) -> Solid:
    """The same cap, looking down."""
    return Solid(cap.vertices, cap.faces[:, ::-1], cap.uvs, cap.welds, cap.charts)
