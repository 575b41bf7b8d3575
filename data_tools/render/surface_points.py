"""Points spread evenly over what the drawn views see of a surface, from their depth and normals.

From images and not from triangles: what no view sees (the inside of a closed box, faces inside others) is no
part of the result, cut-out textures are cut out, and every engine's own reader is followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from data_tools.engines.base import ViewPasses
from data_tools.shared.plan import RenderPlan

# Pixels that see the surface at a flatter angle stand for areas that their one depth does not tell.
_MIN_COSINE = 0.1
# Cells along a unit of length, in which the views are counted that see the same part of the surface.
_CELLS = 50
# Points kept of a view, in parts of the requested number: all views see about twice the surface together.
_SURPLUS = 4


class SurfaceSampler:
    """Collects points while views pass by; `points` has the result afterwards.

    plan: its cameras; its `surface_points` are asked for. seed: the same views and seed give the same points.
    """

    def __init__(self, plan: RenderPlan, seed: int = 0) -> None:
        self._plan = plan
        self._random = np.random.default_rng(seed)
        self._points: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []

    def passing(self, views: Iterable[ViewPasses]) -> Iterator[ViewPasses]:
        """The same views, without geometry where the plan writes none."""
        for number, view in enumerate(views):
            if view.depth is not None and view.normal is not None:
                self._add(number, view.depth, view.normal)
            yield view if self._plan.geometry else replace(view, depth=None, normal=None)

    def _add(self, number: int, depth: Float[np.ndarray, "R R"], normal: Float[np.ndarray, "R R 3"]) -> None:
        row, column = np.nonzero(depth > 0)
        if not len(row):
            return
        size, pose = self._plan.resolution, self._plan.c2w[number]
        focal = 0.5 * size / np.tan(np.radians(self._plan.fov_y_deg) / 2)
        rays = np.stack([column + 0.5 - size / 2, row + 0.5 - size / 2, np.full(len(row), focal)], -1) / focal
        z = depth[row, column].astype(np.float64)
        world_rays = rays @ pose[:3, :3].T
        cosine = np.abs((normal[row, column] * world_rays).sum(-1)) / np.linalg.norm(rays, axis=-1)
        # A pixel covers z² / f² of a plane that faces the camera, more of one that is turned away; rays off
        # the axis are longer, and meet the image at an angle.
        area = np.where(
            cosine > _MIN_COSINE, z**2 / (np.linalg.norm(rays, axis=-1) * np.maximum(cosine, 1e-9)), 0
        )
        count = min(int((area > 0).sum()), _SURPLUS * self._plan.surface_points // self._plan.num_views + 1)
        if not count:
            return
        chosen = self._random.choice(len(area), count, replace=False, p=area / area.sum())
        self._points.append(world_rays[chosen] * z[chosen, None] + pose[:3, 3])
        self._weights.append(np.full(count, area.sum() / count))

    def points(self) -> Float[np.ndarray, "P 3"]:
        """At most as many points as the plan asks for, fewer where the images have fewer pixels."""
        if not self._points:
            return np.zeros((0, 3))
        points = np.concatenate(self._points)
        view = np.repeat(np.arange(len(self._points)), [len(some) for some in self._points])
        weights = np.concatenate(self._weights) / _views_of_cells(points, view)
        count = min(self._plan.surface_points, len(points))
        chosen = self._random.choice(len(points), count, replace=False, p=weights / weights.sum())
        return points[np.sort(chosen)]


def _views_of_cells(points: Float[np.ndarray, "P 3"], view: np.ndarray) -> np.ndarray:
    """How many views have a point in each point's cell: what ten views see is not ten times as large."""
    _, cell = np.unique(np.floor(points * _CELLS).astype(np.int64), axis=0, return_inverse=True)
    pairs = np.unique(np.stack([cell.ravel(), view], -1), axis=0)
    return np.bincount(pairs[:, 0])[cell.ravel()]
