"""Points on the visual hull (what all silhouettes together leave of space), and which view sees which."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from data_tools.reprojection.outlines import MIN_ALPHA
from lgm.cameras.ray_geometry import meeting_point

# Cells along a side of the grid: coarse ones first, what is left of them divided by four. A fine cell is
# about a pixel of an image of 64.
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
    is_seen: [V, N], whether a view shows the point, in the image and not hidden by another."""

    pixels: np.ndarray
    is_seen: np.ndarray


def find_surface(alphas: np.ndarray, c2w: np.ndarray, fov_y_deg: float, carves: np.ndarray) -> SurfacePoints:
    """alphas: [V, S, S] in 0..1; c2w: [V, 4, 4], OpenCV axes; carves: [V], whose silhouettes count. No points
    where these leave nothing."""
    size = alphas.shape[-1]
    projections = projections_of(c2w, fov_y_deg, size)
    ball = _ball(c2w, fov_y_deg)
    if ball is None:
        nothing = np.zeros((len(c2w), 0), dtype=np.int32)
        return SurfacePoints(nothing, nothing.astype(bool))
    cells, points = _carve(alphas[carves] > MIN_ALPHA, projections[carves], *ball)
    points = points[_is_outside(cells)]
    points = points[np.unique(np.linspace(0, len(points) - 1, min(len(points), _MAX_POINTS)).astype(int))]
    cell = 2 * ball[1] / _NUM_CELLS
    seen = [_seen(projection, points, size, cell) for projection in projections]
    return SurfacePoints(*(np.stack(part) for part in zip(*seen, strict=True)))


def carved_points(alphas: np.ndarray, c2w: np.ndarray, fov_y_deg: float) -> tuple[np.ndarray, float] | None:
    """All points [N, 3] of a grid within the hull, and the side of its cells; None where cameras look at no
    common object. alphas, c2w: see `find_surface`."""
    ball = _ball(c2w, fov_y_deg)
    if ball is None:
        return None
    projections = projections_of(c2w, fov_y_deg, alphas.shape[-1])
    return _carve(alphas > MIN_ALPHA, projections, *ball)[1], 2 * ball[1] / _NUM_CELLS


def dilated(inside: np.ndarray, pixels: int) -> np.ndarray:
    """inside: [S, S]; so many pixels more on every side."""
    return _around(inside, (0, 1), pixels, np.logical_or)


def _ball(c2w: np.ndarray, fov_y_deg: float) -> tuple[np.ndarray, float] | None:
    """Where the views meet, and the radius of the ball that a view just holds; None where they are as good as
    parallel: they look at no object."""
    met = meeting_point(c2w[:, :3, 3], c2w[:, :3, 2])
    if met is None:
        return None
    distance = np.median(np.linalg.norm(c2w[:, :3, 3] - met[0], axis=1))
    return met[0], float(distance * np.sin(np.radians(fov_y_deg) / 2))


def projections_of(c2w: np.ndarray, fov_y_deg: float, size: int) -> np.ndarray:
    """[V, 3, 4]: homogeneous points to pixels times depth, and depth."""
    w2c = np.linalg.inv(c2w)[:, :3]
    half = size / 2
    focal = half / np.tan(np.radians(fov_y_deg) / 2)
    return (np.array([[focal, 0, half], [0, focal, half], [0, 0, 1]]) @ w2c).astype(np.float32)


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
    wide = _around(inside, (1, 2), round(margin * pixels_a_cell + 0.25), np.logical_or).reshape(
        len(inside), -1
    )
    left = np.arange(len(cells))
    for projection, silhouette in zip(projections, wide, strict=True):
        pixels, _, is_shown = pixels_of(projection, points, size)
        # What an image does not show, it does not carve away.
        kept = silhouette[pixels] | ~is_shown
        if not kept.all():
            left, points = left[kept], points.compress(kept, axis=0)
    return cells[left], points


def pixels_of(projection: np.ndarray, points: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Flat numbers of pixels (0 outside the image), depths, and whether points are in the image; [N]."""
    x, y, depth = projection[:, :3] @ points.T + projection[:, 3:]
    scale = 1 / np.maximum(depth, _NEAREST)
    x, y = x * scale, y * scale
    is_shown = (depth > _NEAREST) & (x >= 0) & (x < size) & (y >= 0) & (y < size)
    columns, rows = (np.where(is_shown, coordinates, 0).astype(np.int32) for coordinates in (x, y))
    return rows * size + columns, depth, is_shown


def _around(values: np.ndarray, axes: tuple[int, ...], pixels: int, combine: np.ufunc) -> np.ndarray:
    """Along each of the axes every value combined with those up to so many places before and after it."""
    for axis in axes:
        one = np.moveaxis(values, axis, 0)
        combined = one.copy()
        for step in range(1, pixels + 1):
            combine(combined[step:], one[:-step], out=combined[step:])
            combine(combined[:-step], one[step:], out=combined[:-step])
        values = np.moveaxis(combined, 0, axis)
    return values


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
    pixels, depth, is_shown = pixels_of(projection, points, size)
    nearest = np.full(size * size, np.inf, dtype=np.float32)
    from_far = np.argsort(-depth)
    from_far = from_far[is_shown[from_far]]
    nearest[pixels[from_far]] = depth[from_far]  # the last one written is the nearest
    # Points stand a pixel apart, and leave holes: what counts is the least of the 3 x 3 pixels around each.
    nearest = _around(nearest.reshape(size, size), (0, 1), 1, np.minimum).ravel()
    return pixels, is_shown & (depth < nearest[pixels] + _HIDING_DEPTH * cell)
