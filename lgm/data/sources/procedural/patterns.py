"""Patterns: colours of points of a surface, by where they lie in space or on their chart.

A pattern is drawn once and then asked for any number of points. Borders are as soft as a texel is wide, so
that a texture has no jagged edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from lgm.data.sources.procedural.draws import log_uniform
from lgm.data.sources.procedural.lettering import CHARACTERS, ink, word
from lgm.data.sources.procedural.noise import Noise, cells
from lgm.data.sources.procedural.products import dot

Colors = Float[np.ndarray, "n 3"]


@dataclass(frozen=True)
class Texels:
    """Points to be painted.

    points: in the frame in which the shape was made, -1 to 1. st: along the chart's width and height, in
    the units of space. width: of a texel.
    """

    points: Float[np.ndarray, "n 3"]
    st: Float[np.ndarray, "n 2"]
    width: float


Pattern = Callable[[Texels], Colors]


def solid(rng: Generator, palette: np.ndarray) -> Pattern:
    """One colour everywhere."""
    color = _one(rng, palette)
    return lambda texels: np.broadcast_to(color, (len(texels.points), 3))


def gradient(rng: Generator, palette: np.ndarray) -> Pattern:
    """Between two or three colours along a direction, or away from a point."""
    stops = _several(rng, palette, int(rng.integers(2, 4)))
    direction, center, is_radial = _direction(rng), rng.uniform(-0.8, 0.8, 3), rng.random() < 0.3

    def paint(texels: Texels) -> Colors:
        if is_radial:
            along = np.linalg.norm(texels.points - center, axis=1) / 1.5
        else:
            along = dot(texels.points, direction) / 2 + 0.5
        return _ramp(along, stops)

    return paint


def stripes(rng: Generator, palette: np.ndarray) -> Pattern:
    """Bands of two to four colours, straight or warped: cloth, marble, wood."""
    bands = _several(rng, palette, int(rng.integers(2, 5)))
    period, direction = log_uniform(rng, 0.25, 1.2), _direction(rng)
    on_chart, angle = rng.random() < 0.35, rng.choice([0, np.pi / 2, np.pi / 4, rng.uniform(0, np.pi)])
    warp = float(rng.choice([0.0, 0.0, rng.uniform(0.1, 0.5)]))
    ends = np.sort(rng.uniform(0.1, 0.9, len(bands) - 1)).tolist()
    noise = Noise(rng)

    def paint(texels: Texels) -> Colors:
        along = (
            dot(texels.st, np.array([np.cos(angle), np.sin(angle)], np.float32))
            if on_chart
            else dot(texels.points, direction)
        )
        if warp:
            along = along + warp * period * 2 * noise.fractal(texels.points * 1.7, 2)
        phase = (along / period) % 1.0
        # Antialiasing: borders blend over about one texel.
        soft = texels.width / period
        colors = np.broadcast_to(bands[0], (len(phase), 3))
        for end, band in zip(ends, bands[1:], strict=True):
            colors = _mix(colors, band, _step((phase - end) / soft))
        return _mix(colors, bands[0], _step((phase - 1) / soft + 0.5))

    return paint


def checks(rng: Generator, palette: np.ndarray) -> Pattern:
    """Squares, tiles with joints, bricks, dots or a plaid."""
    first, second = _several(rng, palette, 2)
    kind, side = rng.integers(5), log_uniform(rng, 0.12, 0.6)
    joint, radius = rng.uniform(0.04, 0.15), rng.uniform(0.2, 0.42)
    in_space = kind == 0 and rng.random() < 0.5

    def paint(texels: Texels) -> Colors:
        soft = texels.width / side
        if in_space:
            waves = np.prod([_square(texels.points[:, k] / side, soft) for k in range(3)], axis=0)
            return _mix(first, second, waves / 2 + 0.5)
        s, t = texels.st.T / side
        if kind == 2:  # every second row of bricks is moved by half a brick
            # Bricks are twice as wide as high.
            s = s / 2 + 0.5 * (np.floor(t) % 2)
        if kind == 0:
            return _mix(first, second, _square(s, soft) * _square(t, soft) / 2 + 0.5)
        if kind in (1, 2):
            # A brick's s was halved above: its joints are as wide as the others.
            near = np.minimum(_to_line(s) * (2 if kind == 2 else 1), _to_line(t))
            return _mix(second, first, _step((near - joint / 2) / soft))
        if kind == 3:
            t, s = t, s + 0.5 * (np.floor(t) % 2)
            reach = np.hypot(s % 1 - 0.5, t % 1 - 0.5)
            return _mix(second, first, _step((reach - radius) / soft))
        plaid = _square(s, soft) / 4 + _square(t, soft) / 4 + 0.5
        return _mix(first, second, plaid)

    return paint


def clouds(rng: Generator, palette: np.ndarray) -> Pattern:
    """Fractal noise between colours; cut off sharply, a hide or a camouflage."""
    stops = _several(rng, palette, int(rng.integers(2, 5)))
    noise, frequency = Noise(rng), log_uniform(rng, 0.8, 5.0)
    octaves, contrast = int(rng.integers(1, 4)), rng.uniform(0.6, 1.2)
    is_sharp = rng.random() < 0.4

    def paint(texels: Texels) -> Colors:
        value = 0.5 + contrast * noise.fractal(texels.points * frequency, octaves)
        if not is_sharp:
            return _ramp(value, stops)
        soft = texels.width * frequency * 1.5
        colors = np.broadcast_to(stops[0], (len(value), 3))
        for number, stop in enumerate(stops[1:], 1):
            colors = _mix(colors, stop, _step((value - number / len(stops)) / soft))
        return colors

    return paint


def mosaic(rng: Generator, palette: np.ndarray) -> Pattern:
    """Cells around random points, of several colours or with borders: a ball, a giraffe, terrazzo."""
    count = int(log_uniform(rng, 8, 90))
    centers = rng.uniform(-1, 1, (count, 3))
    if rng.random() < 0.5:
        # On the sphere: cells of equal width on round shapes.
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    colors = _several(rng, palette, min(len(palette), 4))[rng.integers(min(len(palette), 4), size=count)]
    border = float(rng.choice([0.0, rng.uniform(0.02, 0.09)]))
    border_color = _one(rng, palette)
    if border and rng.random() < 0.4:
        colors = np.broadcast_to(_one(rng, palette), colors.shape)

    def paint(texels: Texels) -> Colors:
        nearest, margin = cells(texels.points, centers)
        painted = colors[nearest]
        if border:
            painted = _mix(border_color, painted, _step((margin - border) / texels.width / 2))
        return painted

    return paint


def letters(rng: Generator, palette: np.ndarray) -> Pattern:
    """Lines of writing."""
    paper, pen = _several(rng, palette, 2)
    dots = word("".join(rng.choice(list(CHARACTERS), int(rng.integers(2, 9)))))
    height = log_uniform(rng, 0.2, 0.9)
    line, start = height * rng.uniform(1.0, 1.6), rng.uniform(0, 1, 2)
    width = height * dots.shape[1] / dots.shape[0]
    is_upright = rng.random() < 0.8

    def paint(texels: Texels) -> Colors:
        s, t = texels.st.T if is_upright else texels.st.T[::-1]
        x, y = (s / width + start[0]) % 1.0, ((t / line + start[1]) % 1.0) * line / height
        return _mix(paper, pen, ink(dots, x, y))

    return paint


def decals(rng: Generator, palette: np.ndarray, base: Pattern) -> Pattern:
    """Discs, rings, stars, patches and words on a pattern."""
    marks = [_mark(rng, palette) for _ in range(int(rng.integers(1, 6)))]

    def paint(texels: Texels) -> Colors:
        colors = base(texels)
        extent = np.maximum(texels.st.max(0), 1e-6)
        for mark in marks:
            colors = mark(texels, extent, colors)
        return colors

    return paint


def weathered(rng: Generator, base: Pattern) -> Pattern:
    """Lighter and darker by fine noise, as hardly any real surface is even."""
    noise, strength, frequency = Noise(rng), rng.uniform(0.04, 0.22), log_uniform(rng, 1.6, 13.0)

    def paint(texels: Texels) -> Colors:
        return base(texels) * (1 + strength * noise.fractal(texels.points * frequency, 2)[:, None])

    return paint


def _mark(rng: Generator, palette: np.ndarray) -> Callable[[Texels, np.ndarray, Colors], Colors]:
    kind, color, at = rng.integers(5), _one(rng, palette), rng.uniform(0.1, 0.9, 2)
    size, turn, tips = (
        log_uniform(rng, 0.12, 0.5),
        rng.uniform(0, 6.28),
        rng.integers(4, 8),
    )
    dots = word("".join(rng.choice(list(CHARACTERS), int(rng.integers(1, 4)))))

    def paint(texels: Texels, extent: np.ndarray, colors: Colors) -> Colors:
        x, y = ((texels.st - at * extent) / size).T
        soft = texels.width / size
        if kind == 0:
            cover = _step((1 - np.hypot(x, y)) / soft)
        elif kind == 1:
            cover = _step((0.22 - np.abs(np.hypot(x, y) - 0.8)) / soft)
        elif kind == 2:
            reach = 0.65 + 0.35 * np.cos(tips * np.arctan2(y, x) + turn)
            cover = _step((reach - np.hypot(x, y)) / soft)
        elif kind == 3:
            cover = _step((np.minimum(1 - np.abs(x), 0.6 - np.abs(y))) / soft)
        else:
            wide = dots.shape[1] / dots.shape[0]
            cover = ink(dots, x / (2 * wide) + 0.5, y / 2 + 0.5)
        return _mix(colors, color, cover)

    return paint


def _one(rng: Generator, palette: np.ndarray) -> np.ndarray:
    return palette[rng.integers(len(palette))]


def _several(rng: Generator, palette: np.ndarray, count: int) -> np.ndarray:
    """Colours of the palette, each once as long as there are more."""
    # `resize` repeats the permutation where more colours are asked for than there are.
    order = rng.permutation(len(palette))
    return palette[np.resize(order, count)]


def _direction(rng: Generator) -> np.ndarray:
    """Along an axis more often than not."""
    if rng.random() < 0.6:
        return np.eye(3, dtype=np.float32)[rng.integers(3)]
    direction = rng.normal(size=3)
    return (direction / np.linalg.norm(direction)).astype(np.float32)


def _mix(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> Colors:
    return low + (high - low) * weight[:, None]


def _ramp(value: np.ndarray, stops: np.ndarray) -> Colors:
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(value, at, stops[:, k]) for k in range(3)], -1)


def _step(value: np.ndarray) -> np.ndarray:
    """0 to 1 across a border, over about one texel."""
    return np.clip(value + 0.5, 0, 1)


def _square(value: np.ndarray, soft: float) -> np.ndarray:
    """A square wave of period 2, -1 to 1, with soft edges."""
    return np.clip((np.abs(value % 2 - 1) - 0.5) / max(soft, 1e-3) * 2, -1, 1)


def _to_line(value: np.ndarray) -> np.ndarray:
    """Distance to the nearest whole number."""
    return np.abs(value - np.round(value))
