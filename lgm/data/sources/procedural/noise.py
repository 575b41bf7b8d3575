"""Value noise in space and its octaves (fractal Brownian motion); cells of random points (Worley 1996)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from lgm.data.sources.procedural.products import transformed

_SIDE = 16  # lattice points before the noise repeats itself


class Noise:
    """Smooth random values on a lattice of spacing 1, periodic after 16."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._table = rng.uniform(-1, 1, _SIDE**3).astype(np.float32)

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """-1 to 1."""
        points = points.astype(np.float32)
        base = np.floor(points)
        f = points - base
        # Smoothstep: the derivative is 0 at lattice points, so that no creases show.
        f = f * f * (3 - 2 * f)
        cell = base.astype(np.int32) % _SIDE
        after = (cell + 1) % _SIDE
        x = (cell[:, 0], after[:, 0])
        y = (cell[:, 1] * _SIDE, after[:, 1] * _SIDE)
        z = (cell[:, 2] * _SIDE**2, after[:, 2] * _SIDE**2)
        fx, fy, fz = f.T
        planes = []
        for k in range(2):
            rows = []
            for j in range(2):
                at = y[j] + z[k]
                low, high = self._table[x[0] + at], self._table[x[1] + at]
                rows.append(low + fx * (high - low))
            planes.append(rows[0] + fy * (rows[1] - rows[0]))
        return planes[0] + fz * (planes[1] - planes[0])

    def fractal(self, points: Float[np.ndarray, "n 3"], octaves: int) -> Float[np.ndarray, " n"]:
        """About -1 to 1; each octave has twice the frequency of the one before and half its strength."""
        total = self(points)
        for octave in range(1, octaves):
            # Shifted, or all octaves would meet in the origin.
            total = total + self(points * 2**octave + 5.2 * octave) / 2**octave
        return total / (2 - 2.0 ** (1 - octaves))


def cells(
    points: Float[np.ndarray, "n 3"], centers: Float[np.ndarray, "k 3"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The nearest centre of each point, and how much farther away the second one is: 0 on borders."""
    points, centers = points.astype(np.float32), centers.astype(np.float32)
    # |p - c|² expanded into a matrix product; rounding may leave it a little below 0.
    squares = (points**2).sum(1)[:, None] - 2 * transformed(points, centers) + (centers**2).sum(1)
    rows = np.arange(len(points))
    nearest = squares.argmin(1)
    first = np.sqrt(np.maximum(squares[rows, nearest], 0))
    squares[rows, nearest] = np.inf
    return nearest, np.sqrt(np.maximum(squares.min(1), 0)) - first
