"""Single views that stand apart: images that were exchanged, or belong to no camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_tools.reprojection.hypotheses import AS_GIVEN
from data_tools.reprojection.outlines import Outlines
from data_tools.reprojection.tangency import Gaps, describe

# A view stands apart where its gaps are so many times the median view's, and so many percent of the
# image's width above it.
_SUSPECT_RATIO, _SUSPECT_EXCESS = 2.0, 0.25
# Another camera is the right one where the gaps fall below this share of what they were.
_BETTER_SHARE = 0.5
# No camera fits: as above, a pixel more, beyond what thin parts do that one image shows and another
# loses.
_STRAY_RATIO, _STRAY_EXCESS = 5.0, 1.2
_MIN_PARTNERS = 4


@dataclass(frozen=True)
class Stray:
    """A view whose image does not fit its camera. camera: the view whose camera it fits, or None."""

    view: int
    camera: int | None
    fault: str


def view_gaps(pairs: np.ndarray, gaps: Gaps, num_views: int) -> np.ndarray:
    """Each view's mean gap [V], NaN where it has too few partners."""
    weights = gaps.is_valid.sum(axis=1)
    sums = np.where(gaps.is_valid, gaps.values, 0).sum(axis=1)
    total, count = np.zeros(num_views), np.zeros(num_views)
    for side in (0, 1):
        np.add.at(total, pairs[:, side], sums)
        np.add.at(count, pairs[:, side], weights)
    return np.where(count >= _MIN_PARTNERS, total / np.maximum(count, 1), np.nan)


def find_strays(
    outlines: Outlines, c2w: np.ndarray, fov_y_deg: float, pairs: np.ndarray, given: Gaps
) -> Iterator[Stray]:
    """Each view whose image does not fit its camera while the others fit theirs."""
    by_view = view_gaps(pairs, given, len(c2w))
    if np.isnan(by_view).all():
        return
    middle = np.nanmedian(by_view)
    with np.errstate(invalid="ignore"):
        is_suspect = by_view > np.maximum(_SUSPECT_RATIO * middle, middle + _SUSPECT_EXCESS)
    if not is_suspect.any() or is_suspect.mean() > 0.5:
        return
    trusted = np.flatnonzero(~is_suspect & outlines.is_whole)
    excess = _STRAY_EXCESS + 100 / outlines.width
    for view in np.flatnonzero(is_suspect):
        gaps = _gaps_at_each_camera(outlines, c2w, fov_y_deg, view, trusted)
        if np.isnan(gaps[view]):
            continue
        best = int(np.nanargmin(gaps))
        if gaps[best] < _BETTER_SHARE * gaps[view] and gaps[view] - gaps[best] > _SUSPECT_EXCESS:
            fault = (
                f"view {view}: its image does not match its camera but that of view {best} "
                f"({describe(gaps[view], gaps[best])})"
            )
            yield Stray(int(view), best, fault)
        elif gaps[view] > max(_STRAY_RATIO * middle, middle + excess):
            fault = f"view {view}: its image matches no camera (off by {gaps[view]:.2f} % of the width)"
            yield Stray(int(view), None, fault)


def _gaps_at_each_camera(
    outlines: Outlines, c2w: np.ndarray, fov_y_deg: float, view: int, trusted: np.ndarray
) -> np.ndarray:
    """Mean gaps [V] of one view's image against the trusted views, as if taken by each camera."""
    trusted = trusted[trusted != view]
    cameras = np.arange(len(c2w))
    # The image once for each camera, and after them the trusted views as they are.
    stacked = outlines.take(np.r_[np.full(len(cameras), view), trusted])
    camera_ids = np.r_[cameras, trusted]
    # Against itself at its own camera a trusted image would be no witness: same centre, no line.
    pairs = np.array([(k, len(cameras) + t) for k in cameras for t in range(len(trusted))])
    gaps = AS_GIVEN.gaps(stacked, c2w[camera_ids], fov_y_deg, pairs)
    return view_gaps(pairs, gaps, len(camera_ids))[: len(cameras)]
