"""How far two views disagree about the planes that touch the object: epipolar tangency.

Turn a plane about the line through two cameras' centres. Where it first and last touches the object,
it touches both silhouettes, whatever the object's shape, and at the same point of the surface (a
frontier point; Cipolla, Astrom and Giblin, "Motion from the frontier of curved surfaces", ICCV 1995).
So right cameras see both tangent planes at the same angles, and the two rays to each of the points
meet in front of both cameras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_tools.reprojection.outlines import Outlines

# In percent of the image's width: beyond, one gap says no more than that it is wrong.
MAX_GAP = 5.0
# Cosine of 86 degrees. Where the outline reaches further around the line through the cameras, that line
# runs through the object or nearly so, and no plane touches.
_MIN_COSINE = 0.07


@dataclass(frozen=True)
class Gaps:
    """values: [P, 2] gaps in percent of the image's width, for the tangent planes on the two sides.
    is_valid: [P, 2], False where no plane touches, or an image's edge cuts the object off."""

    values: np.ndarray
    is_valid: np.ndarray

    def mean(self) -> float:
        """Over the valid ones; NaN without any."""
        return float(self.values[self.is_valid].mean()) if self.is_valid.any() else float("nan")


def describe(before: float, after: float) -> str:
    """Two mean gaps in words; the first may be NaN."""
    if np.isnan(before):
        return f"cameras look past the object; then silhouettes disagree by {after:.2f} % of the width"
    return f"silhouettes disagree by {before:.2f} % of the width, then by {after:.2f}"


def world_rays(points: np.ndarray, rotations: np.ndarray, half_width: float) -> np.ndarray:
    """Unit directions [V, K, 3] in the world; half_width: tangent of half the field of view."""
    directions = np.concatenate([points * half_width, np.ones_like(points[..., :1])], axis=-1)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return (directions @ rotations.transpose(0, 2, 1)).astype(np.float32)


def tangent_gaps(
    outlines: Outlines, rays: np.ndarray, centers: np.ndarray, half_width: float, pairs: np.ndarray
) -> Gaps:
    """rays: [V, K, 3] as of world_rays; centers: [V, 3]; pairs: [P, 2] numbers of views."""
    touching, is_open = _tangents(outlines, rays, centers, pairs)
    values = []
    for (slope_one, across_one, along_one), (slope_two, across_two, along_two) in touching:
        angle = np.abs(np.arctan(slope_one) - np.arctan(slope_two))
        # An angle about the line moves a point that lies near the line less; the least counts.
        gap = angle * np.minimum(across_one, across_two) * 50 / half_width
        # Along the line from camera one to two, rays that meet have turned further at camera one's.
        values.append(np.where(along_one > along_two, np.minimum(gap, MAX_GAP), MAX_GAP))
    values = np.stack(values, axis=1)
    return Gaps(values, np.broadcast_to(is_open[:, None], values.shape))


def tangent_excess(
    outlines: Outlines, rays: np.ndarray, centers: np.ndarray, half_width: float, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far the second view of each pair reaches beyond the first about the line through the cameras, in
    percent of the image's width, on both sides [P, 2]; and which pairs [P] that can be said of."""
    (lowest, highest), is_open = _tangents(outlines, rays, centers, pairs)
    excess = []
    for sign, ((slope_one, across_one, _), (slope_two, across_two, _)) in ((1, lowest), (-1, highest)):
        angle = sign * (np.arctan(slope_one) - np.arctan(slope_two))
        excess.append(angle * np.minimum(across_one, across_two) * 50 / half_width)
    return np.stack(excess, axis=1), is_open


def _tangents(
    outlines: Outlines, rays: np.ndarray, centers: np.ndarray, pairs: np.ndarray
) -> tuple[list[tuple], np.ndarray]:
    """For the tangent planes on the two sides what `_touching` says of both views; and which pairs [P] have
    such planes."""
    one, two = pairs.T
    frame, has_frame = _frames(rays.mean(axis=1), centers, pairs)
    both = [_in_frame(rays[views], frame) for views in (one, two)]
    is_open = has_frame & outlines.is_whole[one] & outlines.is_whole[two]
    for _, cosines, _ in both:
        is_open &= cosines.min(axis=1) > _MIN_COSINE
    return [tuple(_touching(side, choose) for side in both) for choose in (np.argmin, np.argmax)], is_open


def _frames(views: np.ndarray, centers: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axes [P, 3, 3] as columns: towards the object, aside, and along the line between the centres."""
    one, two = pairs.T
    line = centers[two] - centers[one]
    length = np.linalg.norm(line, axis=-1, keepdims=True)
    line = line / np.maximum(length, 1e-12)
    ahead = views[one] + views[two]
    ahead = ahead - (ahead * line).sum(axis=-1, keepdims=True) * line
    reach = np.linalg.norm(ahead, axis=-1, keepdims=True)
    ahead = ahead / np.maximum(reach, 1e-12)
    scale = np.abs(centers).max()
    exists = (length[:, 0] > 1e-6 * scale) & (reach[:, 0] > 1e-6)
    return np.stack([ahead, np.cross(line, ahead), line], axis=-1).astype(np.float32), exists


def _in_frame(rays: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slopes about the line, cosines of those angles, and shares along the line; [P, K] each."""
    ahead, aside, along = np.moveaxis(rays @ frame, -1, 0)
    across = np.maximum(np.hypot(ahead, aside), 1e-6)
    slopes = aside / np.where(np.abs(ahead) < 1e-6, 1e-6, ahead)
    return slopes, ahead / across, along


def _touching(
    side: tuple[np.ndarray, np.ndarray, np.ndarray], choose: Callable[..., np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the plane touches one silhouette: its slope, and the ray's sine and cosine to the line."""
    slopes, _, along = side
    index = choose(slopes, axis=1)[:, None]
    along = np.take_along_axis(along, index, axis=1)[:, 0]
    slope = np.take_along_axis(slopes, index, axis=1)[:, 0]
    return slope, np.sqrt(np.maximum(1 - along**2, 0)), along
