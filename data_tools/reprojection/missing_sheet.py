"""Views that look along a flat part of an object: a card of two crossed ones, a fence, a leaf on a stem.

What has no thickness vanishes there, and the view shows less than the others say. That is no fault of its
camera where a shape exists that agrees with all images: what the view shows, and a sheet in a plane through
its camera.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data_tools.reprojection.hull_points import carved_points, dilated, pixels_of, projections_of
from data_tools.reprojection.outlines import MIN_ALPHA, Outlines
from data_tools.reprojection.tangency import tangent_excess, world_rays

# A view may miss a sheet that shows less than its partners by this, in percent of the image's width.
_MIN_LOSS = 0.1
# At least so many views are to say what the object is.
_MIN_TRUSTED = 4
# Pixels of a silhouette of 64 that may disagree, beside _SLACK of the silhouette: a grid of 48 cells rounds.
_PIXELS, _SLACK = 4, 0.01
# Cells on either side of a sheet's plane.
_HALF_THICKNESS = 1.2
_ANGLES = np.arange(12) * (np.pi / 12)


def views_missing_a_sheet(
    outlines: Outlines, silhouettes: np.ndarray, c2w: np.ndarray, fov_y_deg: float, pairs: np.ndarray
) -> np.ndarray:
    """[V], which views lack a flat part that they see edge-on, and only that.

    outlines of V views; silhouettes: [V, S, S] alphas in 0..1; c2w: [V, 4, 4]; pairs: [P, 2] views compared.
    """
    suspects = _smaller_than_others(outlines, c2w, fov_y_deg, pairs)
    trusted = np.flatnonzero(outlines.is_whole & ~suspects)
    missing = np.zeros(len(c2w), dtype=bool)
    if not suspects.any() or len(trusted) < _MIN_TRUSTED:
        return missing
    carved = carved_points(silhouettes[trusted], c2w[trusted], fov_y_deg)
    if carved is None:
        return missing
    points, cell = carved
    projections = projections_of(c2w, fov_y_deg, silhouettes.shape[-1])
    shown = silhouettes > MIN_ALPHA
    covers = _Cover(points, projections[trusted], shown[trusted])
    for view in np.flatnonzero(suspects):
        seen = _seen(points, projections[view], shown[view])
        if seen is None or covers.explain(seen):
            continue
        for normal in _normals(points[~seen], c2w[view], projections[view], shown.shape[-1]):
            on_sheet = np.abs((points - c2w[view, :3, 3]) @ normal) < _HALF_THICKNESS * cell
            if covers.explain(seen | on_sheet):
                missing[view] = True
                break
    return missing


def _smaller_than_others(
    outlines: Outlines, c2w: np.ndarray, fov_y_deg: float, pairs: np.ndarray
) -> np.ndarray:
    """[V] whole views beyond which their partners reach, more than the other way round."""
    half_width = float(np.tan(np.radians(fov_y_deg) / 2))
    rays = world_rays(outlines.points, c2w[:, :3, :3], half_width)
    excess, is_valid = tangent_excess(outlines, rays, c2w[:, :3, 3], half_width, pairs)
    net, count = np.zeros(len(c2w)), np.zeros(len(c2w))
    for side, sign in ((0, 1), (1, -1)):
        np.add.at(net, pairs[is_valid, side], sign * excess[is_valid].mean(axis=1))
        np.add.at(count, pairs[is_valid, side], 1)
    return outlines.is_whole & (net > _MIN_LOSS * np.maximum(count, 1))


def _seen(points: np.ndarray, projection: np.ndarray, shown: np.ndarray) -> np.ndarray | None:
    """Which of the hull's points [N] lie within what a view shows; None where it shows more than the hull."""
    size = len(shown)
    pixels, _, _ = pixels_of(projection, points, size)
    outside = shown & ~_marked(pixels, size, 2)
    if outside.sum() > _PIXELS + _SLACK * shown.sum():
        return None
    return dilated(shown, 1).ravel()[pixels]


def _normals(lost: np.ndarray, c2w: np.ndarray, projection: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Unit normals [3] of planes through the camera's centre that what is lost [N, 3] may lie about: along
    its longest extent in the image, and at other angles through its middle."""
    if len(lost) < 2:
        return
    center, rotation = c2w[:3, 3], c2w[:3, :3]
    local = (lost - center) @ rotation
    projected = local[:, :2] / np.maximum(local[:, 2:], 1e-6)
    middle = projected.mean(axis=0)
    _, _, axes = np.linalg.svd(projected - middle, full_matrices=False)
    longest = np.arctan2(axes[0, 1], axes[0, 0])
    for angle in longest + _ANGLES:
        along = np.array([np.cos(angle), np.sin(angle), 0.0])
        normal = np.cross(np.append(middle, 1.0), along)
        yield rotation @ (normal / np.linalg.norm(normal))


def _marked(pixels: np.ndarray, size: int, reach: int) -> np.ndarray:
    """[S, S], pixels within so many of the marked ones: points of the hull stand a pixel apart and more."""
    marks = np.zeros(size * size, dtype=bool)
    marks[pixels] = True
    return dilated(marks.reshape(size, size), reach)


class _Cover:
    """Whether some of the hull's points still explain what the trusted views show."""

    def __init__(self, points: np.ndarray, projections: np.ndarray, shown: np.ndarray) -> None:
        self._size = shown.shape[-1]
        self._pixels = [pixels_of(projection, points, self._size)[0] for projection in projections]
        everything = np.ones(len(points), dtype=bool)
        # Rods thinner than a cell are in no grid: what all points together do not cover counts for nothing.
        self._covered = [
            silhouette & _marked(pixels[everything], self._size, 2)
            for silhouette, pixels in zip(shown, self._pixels, strict=True)
        ]

    def explain(self, kept: np.ndarray) -> bool:
        """kept: [N]."""
        for covered, pixels in zip(self._covered, self._pixels, strict=True):
            bare = covered & ~_marked(pixels[kept], self._size, 2)
            if bare.sum() > _PIXELS + _SLACK * covered.sum():
                return False
        return True
