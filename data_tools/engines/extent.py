"""Where in an image an object can be, so that the rest need not be averaged: a software renderer spends
most of a simple object's time on empty pixels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from data_tools.meshes.surfaces import Surface

_CELLS_PER_UNIT = 32
_TRIANGLES_AT_ONCE = 100_000


class Extent:
    """The cells of a grid that an object's vertices lie in; a few thousand, whatever its size."""

    def __init__(self, surfaces: Iterable[Surface]) -> None:
        cells = [_occupied(surface.positions) for surface in surfaces]
        occupied = np.unique(np.concatenate(cells), axis=0) if cells else np.zeros((0, 3))
        offsets = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
        corners = np.unique((occupied[:, None] + offsets).reshape(-1, 3), axis=0) / _CELLS_PER_UNIT
        self._corners = np.concatenate([corners, np.ones((len(corners), 1))], axis=1)  # [N, 4]

    def pixels(self, clip_from_world: Float[np.ndarray, "4 4"], resolution: int) -> tuple[int, int, int, int]:
        """A rectangle x, y, width, height within the image that holds the whole object."""
        if len(self._corners) == 0:
            return 0, 0, 0, 0
        clip = self._corners @ clip_from_world.T
        if clip[:, 3].min() <= 0:  # something may lie behind the camera
            return 0, 0, resolution, resolution
        on_screen = (clip[:, :2] / clip[:, 3:] + 1) / 2 * resolution
        # A pixel more on each side, for what the device rounds.
        low = np.clip(np.floor(on_screen.min(axis=0)).astype(int) - 1, 0, resolution)
        high = np.clip(np.ceil(on_screen.max(axis=0)).astype(int) + 1, 0, resolution)
        return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def _occupied(positions: Float[np.ndarray, "F 3 3"]) -> np.ndarray:
    """[N, 3] whole numbers, each once."""
    low = np.floor(positions.min(axis=(0, 1)) * _CELLS_PER_UNIT).astype(np.int64)
    size = np.floor(positions.max(axis=(0, 1)) * _CELLS_PER_UNIT).astype(np.int64) - low + 1
    # One number a cell, because sorting rows of three takes ten times longer; in pieces, because a mesh of
    # millions of triangles is in memory already.
    occupied = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(positions), _TRIANGLES_AT_ONCE):
        part = positions[start : start + _TRIANGLES_AT_ONCE].reshape(-1, 3)
        cells = np.floor(part * _CELLS_PER_UNIT).astype(np.int64) - low
        occupied.append(np.unique(np.ravel_multi_index(cells.T, size)))
    return np.stack(np.unravel_index(np.unique(np.concatenate(occupied)), size), axis=1) + low
