"""Textures: a random style, painted on the charts of a shape."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy.random import Generator

from lgm.data.sources.procedural import patterns
from lgm.data.sources.procedural.patterns import Pattern, Texels
from lgm.data.sources.procedural.solids import GUTTER, Chart, Solid

_BASES = {
    patterns.solid: 0.30,
    patterns.gradient: 0.08,
    patterns.stripes: 0.16,
    patterns.checks: 0.14,
    patterns.clouds: 0.14,
    patterns.mosaic: 0.10,
    patterns.letters: 0.08,
}


def style(rng: Generator, palette: np.ndarray) -> Pattern:
    """A pattern with or without marks and weathering, in colours of a palette."""
    bases = list(_BASES)
    weights = np.array(list(_BASES.values()))
    pattern = bases[rng.choice(len(bases), p=weights / weights.sum())](rng, palette)
    if rng.random() < 0.2:
        pattern = patterns.decals(rng, palette, pattern)
    if rng.random() < 0.45:
        pattern = patterns.weathered(rng, pattern)
    return pattern


def paint(solid: Solid, pattern: Pattern, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """A shape's texture, sRGB."""
    blocks, texels = [], []
    for chart in solid.charts:
        block, some = _texels(chart, size)
        blocks.append((block, len(some.points)))
        texels.append(some)
    # Patterns are drawn for shapes of -1 to 1 along their longest side.
    corners = np.concatenate([chart.grid.reshape(-1, 3) for chart in solid.charts])
    low, high = (x.astype(np.float32) for x in (corners.min(0), corners.max(0)))
    scale = 2 / max(float((high - low).max()), 1e-9)
    points = np.concatenate([some.points for some in texels])
    st = np.concatenate([some.st for some in texels])
    width = float(np.median([some.width for some in texels]))
    every = Texels((points - (low + high) / 2) * scale, st * scale, width * scale)
    colors = np.clip(pattern(every) * 255 + 0.5, 0, 255).astype(np.uint8)
    # A texture atlas: one rectangle per chart.
    texture = np.empty((size, size, 3), np.uint8)
    texture[:] = colors[::61].mean(0).astype(np.uint8)  # where no chart is; far levels of a pyramid see it
    first = 0
    for (rows, columns), count in blocks:
        shape = (rows.stop - rows.start, columns.stop - columns.start, 3)
        texture[rows, columns] = colors[first : first + count].reshape(shape)
        first += count
    return texture


def _texels(chart: Chart, size: int) -> tuple[tuple[slice, slice], Texels]:
    """Rows and columns of a chart in a texture, and its texels; those of the gutter go on as the border."""
    u0, v0, u1, v1 = chart.rect
    columns, rows = (slice(round(a * size), round(b * size)) for a, b in ((u0, u1), (v0, v1)))
    s, left, across = _along(columns, u0, u1, size, chart.us)
    t, top, down = _along(rows, v0, v1, size, chart.vs)
    grid = chart.grid.astype(np.float32)
    lines = grid[top] + (grid[top + 1] - grid[top]) * down[:, None, None]  # [h, n, 3]
    points = lines[:, left] + (lines[:, left + 1] - lines[:, left]) * across[:, None]
    st = np.stack(np.meshgrid(s * np.float32(chart.size[0]), t * np.float32(chart.size[1])), -1)
    width = max(chart.size[0] / len(s), chart.size[1] / len(t))
    return (rows, columns), Texels(points.reshape(-1, 3), st.reshape(-1, 2), width)


def _along(
    texels: slice, low: float, high: float, size: int, knots: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where texels lie on a chart, 0 to 1; each one's column of the grid, and how far behind it it is."""
    centers = (np.arange(texels.start, texels.stop) + 0.5) / size
    at = np.clip((centers - low - GUTTER) / (high - low - 2 * GUTTER), 0, 1)
    index = np.interp(at, knots, np.arange(len(knots)))
    left = np.minimum(index.astype(int), len(knots) - 2)
    return at.astype(np.float32), left, (index - left).astype(np.float32)
