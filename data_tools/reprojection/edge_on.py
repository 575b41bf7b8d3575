"""Views that look along a flat object: a sheet without thickness vanishes there, and nothing is wrong.

What stays visible, a box on a ground or a frame around a pane, is smaller than what other views see, and lies
within it. Such views are set aside, and the others judged.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data_tools.reprojection.outlines import Outlines
from data_tools.reprojection.tangency import tangent_excess, world_rays

# Sine of the angle between a sheet and the ray to its middle: beyond it a sheet of 1.2 in length is more than
# a pixel of 64 wide.
_MAX_SINE = 0.03
# What a view along the sheet shows is no higher than this fraction of the image's width.
_MAX_HEIGHT = 0.08
# And lies within what other views see, but for so many pixels and percent of the width.
_PIXELS, _PERCENT = 1.0, 0.4
# The sheet must make a difference: percent of the image's width.
_MIN_LOSS = 0.2


def views_along_a_sheet(
    outlines: Outlines, c2w: np.ndarray, fov_y_deg: float, pairs: np.ndarray
) -> Iterator[np.ndarray]:
    """Sets [V] of views that see a flat object edge-on and less of it than the others, one for each plane
    through the middle that explains it. outlines of V views; c2w: [V, 4, 4]; pairs: [P, 2] views compared."""
    centers = c2w[:, :3, 3]
    half_width = float(np.tan(np.radians(fov_y_deg) / 2))
    rays = world_rays(outlines.points, c2w[:, :3, :3], half_width)
    excess, is_valid = tangent_excess(outlines, rays, centers, half_width, pairs)
    for normal in _normals(outlines, c2w, rays):
        sines = np.abs(centers @ normal) / np.linalg.norm(centers, axis=1)
        edge_on = (sines < _MAX_SINE) & outlines.is_whole
        if not edge_on.any() or edge_on[outlines.is_whole].all():
            continue
        if _heights(outlines, c2w, normal)[edge_on].max() > _MAX_HEIGHT:
            continue
        one, two = edge_on[pairs].T
        mixed = (one != two) & is_valid
        if not mixed.any():
            continue
        # How far the other view reaches beyond the one along the sheet.
        loss = excess[mixed] * np.where(one, 1, -1)[mixed, None]
        allowed = _PERCENT + 100 * _PIXELS / outlines.width
        if loss.min() > -allowed and loss.mean() > _MIN_LOSS:
            yield edge_on


def _normals(outlines: Outlines, c2w: np.ndarray, rays: np.ndarray) -> Iterator[np.ndarray]:
    """Unit normals [3] of planes that a flat object may lie in: of the axes, and of each view that shows a
    line."""
    yield from np.eye(3)
    for view in np.flatnonzero(outlines.is_whole):
        points = outlines.points[view] - outlines.points[view].mean(axis=0)
        _, extents, axes = np.linalg.svd(points, full_matrices=False)
        if np.ptp(points @ axes[1]) / 2 < _MAX_HEIGHT and extents[1] < 0.3 * extents[0]:
            along = points @ axes[0]
            normal = np.cross(rays[view, along.argmin()], rays[view, along.argmax()])
            length = np.linalg.norm(normal)
            # Its plane is to run through the middle; else what is seen is no sheet there.
            if length > 1e-6 and abs(c2w[view, :3, 3] @ normal) < _MAX_SINE * length * np.linalg.norm(
                c2w[view, :3, 3]
            ):
                yield normal / length


def _heights(outlines: Outlines, c2w: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """[V]: how far each outline reaches across a plane, as a fraction of the image's width."""
    across = (c2w[:, :3, :3].transpose(0, 2, 1) @ normal)[:, :2]
    across = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return np.ptp((outlines.points * across[:, None]).sum(axis=-1), axis=1) / 2
