"""Points on the visual hull (what all silhouettes together leave of space), and which view sees which."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from data_tools.reprojection.outlines import MIN_ALPHA

# Cells along a side of the grid: coarse ones first, what is left of them divided by four. A fine cell is
# about a pixel of a picture of 64.
_COARSE, _DIVISION = 12, 4
_NUM_CELLS = _COARSE * _DIVISION
# Half a cell's diagonal, in cells: a coarse cell goes only where no part of it can be inside.
_HALF_DIAGONAL = 0.87
# A point hides what lies so many cells behind it.
_HIDING_DEPTH = 2.0
_NEAREST = 1e-6
_MAX_POINTS = 2000


@dataclass(frozen=True)
class SurfacePoints:
    """pixels: [V, N] flat numbers (row * width + column) of the pixels that show the points.
    is_seen: [V, N], whether a view shows the point, in the picture and not hidden by another."""

    pixels: np.ndarray
    is_seen: np.ndarray


def find_surface(alphas: np.ndarray, c2w: np.ndarray, fov_y_deg: float) -> SurfacePoints:
    """alphas: [V, S, S] in 0..1; c2w: [V, 4, 4], OpenCV axes. No points where silhouettes leave nothing."""
    size = alphas.shape[-1]
    projections = _projections(c2w, fov_y_deg, size)
    center, reach = _looked_at(c2w, fov_y_deg)
    cells, points = _carve(alphas > MIN_ALPHA, projections, center, reach)
    points = points[_is_outside(cells)]
    points = points[np.unique(np.linspace(0, len(points) - 1, min(len(points), _MAX_POINTS)).astype(int))]
    cell = 2 * reach / _NUM_CELLS
    seen = [_seen(projection, points, size, cell) for projection in projections]
    return SurfacePoints(*(np.stack(part) for part in zip(*seen, strict=True)))


def _projections(c2w: np.ndarray, fov_y_deg: float, size: int) -> np.ndarray:
    """[V, 3, 4]: homogeneous points to pixels times depth, and depth."""
    w2c = np.linalg.inv(c2w)[:, :3]
    half = size / 2
    focal = half / np.tan(np.radians(fov_y_deg) / 2)
    return (np.array([[focal, 0, half], [0, focal, half], [0, 0, 1]]) @ w2c).astype(np.float32)


def _looked_at(c2w: np.ndarray, fov_y_deg: float) -> tuple[np.ndarray, float]:
    """The point nearest to all optical axes, and the radius of the ball there that a view just holds."""
    centers, axes = c2w[:, :3, 3], c2w[:, :3, 2]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    target = np.linalg.lstsq(across.sum(0), (across @ centers[..., None]).sum(0)[:, 0], rcond=None)[0]
    distance = np.median(np.linalg.norm(centers - target, axis=1))
    return target, float(distance * np.sin(np.radians(fov_y_deg) / 2))


def _carve(
    inside: np.ndarray, projections: np.ndarray, center: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cells [N, 3] that no view sees beside the object, and their centres [N, 3]."""
    cells = np.array(list(product(range(_COARSE), repeat=3)), dtype=np.int16)
    cells, _ = _keep_inside(inside, projections, center, reach, cells, _COARSE, _HALF_DIAGONAL)
    parts = np.array(list(product(range(_DIVISION), repeat=3)), dtype=np.int16)
    cells = (cells[:, None] * _DIVISION + parts).reshape(-1, 3)
    return _keep_inside(inside, projections, center, reach, cells, _NUM_CELLS, 0.5)


def _keep_inside(
    inside: np.ndarray,
    projections: np.ndarray,
    center: np.ndarray,
    reach: float,
    cells: np.ndarray,
    num_cells: int,
    margin: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Those of the cells [N, 3], with their centres; num_cells: along a side of the grid.

    margin: how far outside a silhouette a cell's centre may lie, in cells.
    """
    side = 2 * reach / num_cells
    points = (center + (cells + 0.5) * side - reach).astype(np.float32)
    size = inside.shape[-1]
    pixels_a_cell = size / num_cells  # in the middle; nearer ones are a little larger
    wide = _grown(inside, round(margin * pixels_a_cell + 0.25)).reshape(len(inside), -1)
    left = np.arange(len(cells))
    for projection, silhouette in zip(projections, wide, strict=True):
        pixels, _, is_shown = _pixels(projection, points, size)
        # What a picture does not show, it does not carve away.
        kept = silhouette[pixels] | ~is_shown
        if not kept.all():
            left, points = left[kept], points.compress(kept, axis=0)
    return cells[left], points


def _pixels(projection: np.ndarray, points: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Flat numbers of pixels (0 outside the picture), depths, and whether points are in the picture; [N]."""
    x, y, depth = projection[:, :3] @ points.T + projection[:, 3:]
    scale = 1 / np.maximum(depth, _NEAREST)
    x, y = x * scale, y * scale
    is_shown = (depth > _NEAREST) & (x >= 0) & (x < size) & (y >= 0) & (y < size)
    columns, rows = (np.where(is_shown, places, 0).astype(np.int32) for places in (x, y))
    return rows * size + columns, depth, is_shown


def _grown(inside: np.ndarray, pixels: int) -> np.ndarray:
    """Silhouettes [V, S, S] made wider by so many pixels on each side."""
    for axis in (1, 2):
        one = np.moveaxis(inside, axis, 0)
        grown = one.copy()
        for step in range(1, pixels + 1):
            grown[step:] |= one[:-step]
            grown[:-step] |= one[step:]
        inside = np.moveaxis(grown, 0, axis)
    return inside


def _is_outside(cells: np.ndarray) -> np.ndarray:
    """Whether a cell [N, 3] has a free one beside it."""
    taken = np.zeros((_NUM_CELLS + 2,) * 3, dtype=bool)
    x, y, z = cells.T + 1
    taken[x, y, z] = True
    beside = [taken[x + 1, y, z], taken[x - 1, y, z], taken[x, y + 1, z], taken[x, y - 1, z],
              taken[x, y, z + 1], taken[x, y, z - 1]]  # fmt: skip
    return ~np.all(beside, axis=0)


def _seen(
    projection: np.ndarray, points: np.ndarray, size: int, cell: float
) -> tuple[np.ndarray, np.ndarray]:
    """For one view the pixels [N] of points [N, 3] and whether it sees them; cell: a cell's side."""
    pixels, depth, is_shown = _pixels(projection, points, size)
    nearest = np.full(size * size, np.inf, dtype=np.float32)
    from_far = np.argsort(-depth)
    from_far = from_far[is_shown[from_far]]
    nearest[pixels[from_far]] = depth[from_far]  # the last one written is the nearest
    nearest = _least_around(nearest.reshape(size, size)).ravel()
    return pixels, is_shown & (depth < nearest[pixels] + _HIDING_DEPTH * cell)


def _least_around(depths: np.ndarray) -> np.ndarray:
    """The least of the 3 x 3 pixels around each: points stand a pixel apart, and leave holes."""
    for axis in (0, 1):
        one = np.moveaxis(depths, axis, 0)
        least = one.copy()
        least[1:] = np.minimum(least[1:], one[:-1])
        least[:-1] = np.minimum(least[:-1], one[1:])
        depths = np.moveaxis(least, 0, axis)
    return depths
