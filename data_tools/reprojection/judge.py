"""Whether an object's cameras fit its images, judged against the known ways in which they do not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_tools.reprojection.colored import ColoredViews
from data_tools.reprojection.edge_on import views_along_a_sheet
from data_tools.reprojection.exchanged import find_exchanged
from data_tools.reprojection.hypotheses import AS_GIVEN, HYPOTHESES
from data_tools.reprojection.missing_sheet import views_missing_a_sheet
from data_tools.reprojection.outlines import Outlines
from data_tools.reprojection.pairs import choose_pairs, spread_over
from data_tools.reprojection.strays import find_strays
from data_tools.reprojection.tangency import Gaps, describe
from data_tools.reprojection.turned import find_turned

# Pairs on which hypotheses are compared: those of 24 views, one with each other.
_NUM_COMPARED = 276
# A hypothesis wins where the gaps shrink by a seventh, by more than 0.03 % of the image's width (a
# twenty-fifth of a pixel of 128), and by five standard errors. Measured on the 75 bundled objects: with
# right cameras no gain passes 0.8 errors; with a field of view 5 % off all but two gain more than 5.
_CLEAR_RATIO = 1.15
_CLEAR_GAIN = 0.03
_CLEAR_ERRORS = 5.0
# Renderers cover pixels in steps of a few samples, which moves all parallel edges of a box alike: in images
# of 32 pixels by 0.06 of one, at any number of views. Below this width a gain has to be more.
_COARSE_WIDTH, _COARSE_GAIN_PIXELS = 48, 0.1
# Two views have two tangent planes; with fewer than this nothing can be said, and with fewer than
# _FEW_TANGENTS (the four canonical views alone have 8) only what is gross: few of them vary too little to
# tell by their errors.
_MIN_TANGENTS = 6
_FEW_TANGENTS = 16
_GROSS_RATIO, _GROSS_GAIN = 4.0, 1.0
# Planes touch in 83 % or more of the pairs of the bundled views: not in those that stand opposite each other.
# Where fewer than a tenth do, and views are too many to stand opposite each other, cameras look elsewhere.
_MIN_WHOLE_VIEWS = 5
_MIN_OPEN_SHARE = 0.1
# Percent of the image's width, and half a pixel more: pixels of coarse images are gaps of their own.
# Right cameras of the bundled set stay under 0.3 at 128 pixels and 1.8 at 16.
_MAX_MEAN_GAP, _MAX_MEAN_GAP_PIXELS = 1.2, 0.5


@dataclass(frozen=True)
class Verdict:
    """faults: one line each, empty where the cameras fit.
    mistake: the name of the hypothesis that fits better, or None.
    undecided: names of the hypotheses that fit as well; with all of them nothing was learned.
    gap: how far views disagree with the cameras as given, in percent of the image's width.
    fits_elsewhere: whether a silhouette fits another view's camera.
    """

    faults: tuple[str, ...]
    mistake: str | None
    undecided: tuple[str, ...]
    gap: float
    fits_elsewhere: bool = False

    @property
    def is_tested(self) -> bool:
        """Whether anything was learned: not of images that show no outline, or of too few views."""
        return bool(self.faults) or len(self.undecided) < len(HYPOTHESES)


def judge(outlines: Outlines, c2w: np.ndarray, fov_y_deg: float, images: np.ndarray | None = None) -> Verdict:
    """outlines of V views; c2w: [V, 4, 4], OpenCV axes.

    images: [V, S, S, 4] uint8, colours times alpha: asked where silhouettes find no fault; None for
        silhouettes alone.
    """
    pairs = choose_pairs(len(c2w))
    verdict = _judge_all(outlines, c2w, fov_y_deg, images, pairs)
    if verdict.faults:
        for edge_on in views_along_a_sheet(outlines, c2w, fov_y_deg, pairs):
            others = replace(outlines, is_whole=outlines.is_whole & ~edge_on)
            of_others = _judge_all(others, c2w, fov_y_deg, images, pairs)
            if not of_others.faults:
                return of_others
    # A view that fits another's camera is none that misses a sheet.
    if verdict.faults and images is not None and not verdict.fits_elsewhere:
        silhouettes = images[..., 3].astype(np.float32) / 255
        missing = views_missing_a_sheet(outlines, silhouettes, c2w, fov_y_deg, pairs)
        if missing.any():
            others = replace(outlines, is_whole=outlines.is_whole & ~missing)
            of_others = _judge_all(others, c2w, fov_y_deg, images, pairs, outlines.is_whole)
            if not of_others.faults:
                return of_others
    return verdict


def _judge_all(
    outlines: Outlines,
    c2w: np.ndarray,
    fov_y_deg: float,
    images: np.ndarray | None,
    pairs: np.ndarray,
    is_colored: np.ndarray | None = None,
) -> Verdict:
    """is_colored: [V], whose colours are asked; None for the whole outlines, which leave the surface."""
    given = AS_GIVEN.gaps(outlines, c2w, fov_y_deg, pairs)
    compared = spread_over(len(pairs), _NUM_COMPARED)
    given_compared = Gaps(given.values[compared], given.is_valid[compared])
    best, best_gap, undecided = None, np.inf, []
    for hypothesis in HYPOTHESES:
        other = hypothesis.gaps(outlines, c2w, fov_y_deg, pairs[compared])
        side, mean = _compare(given_compared, other, outlines.width)
        if side > 0 and mean < best_gap:
            best, best_gap = hypothesis, mean
        if side == 0:
            undecided.append(hypothesis.name)
    gap = given.mean()
    if best is not None:
        fault = f"cameras do not match the images: {best.fault} ({describe(gap, best_gap)})"
        return Verdict((fault,), best.name, tuple(undecided), gap)
    whole = outlines.is_whole[pairs].all(axis=1)
    num_open, num_whole = given.is_valid[whole].all(axis=1).sum(), whole.sum()
    if outlines.is_whole.sum() >= _MIN_WHOLE_VIEWS and num_open < _MIN_OPEN_SHARE * num_whole:
        fault = (
            "cameras do not match the images: no common plane touches what pairs of views show, as if the "
            "cameras looked past each other; check that c2w holds camera-to-world matrices"
        )
        return Verdict((fault,), None, tuple(undecided), gap)
    if given.is_valid.sum() < _MIN_TANGENTS:
        return Verdict((), None, tuple(undecided), gap)
    strays = tuple(find_strays(outlines, c2w, fov_y_deg, pairs, given))
    faults = tuple(stray.fault for stray in strays)
    if not faults and gap > _MAX_MEAN_GAP + 100 * _MAX_MEAN_GAP_PIXELS / outlines.width:
        faults = (
            f"cameras do not match the images: silhouettes disagree by {gap:.2f} % of the width, and no "
            "known mistake explains it",
        )
    if faults or images is None:
        fits_elsewhere = any(stray.camera is not None for stray in strays)
        return Verdict(faults, None, tuple(undecided), gap, fits_elsewhere)
    colored = ColoredViews.of(images, outlines.is_whole, c2w, fov_y_deg, is_colored)
    turned = find_turned(colored, [hypothesis for hypothesis in HYPOTHESES if hypothesis.name in undecided])
    if turned is not None:
        hypothesis, before, after = turned
        fault = (
            f"cameras do not match the images: {hypothesis.fault} (colours of views differ by "
            f"{100 * before:.1f} %, then by {100 * after:.1f})"
        )
        return Verdict((fault,), hypothesis.name, tuple(undecided), gap)
    return Verdict(tuple(find_exchanged(colored)), None, tuple(undecided), gap)


def _compare(given: Gaps, other: Gaps, width: int) -> tuple[int, float]:
    """1 where the other fits clearly better, -1 where clearly worse, 0 where one cannot tell; and the
    other's mean gap.

    width: of the images, in pixels."""
    both = given.is_valid & other.is_valid
    num_given, num_other, num_both = given.is_valid.sum(), other.is_valid.sum(), both.sum()
    if 2 * num_both < max(num_given, num_other):
        # One of the two has cameras that look past the object: no planes touch, nothing to compare.
        if num_other > 2 * num_given and num_other >= _MIN_TANGENTS and other.mean() < _MAX_MEAN_GAP / 2:
            return 1, other.mean()
        return (-1 if num_given >= _MIN_TANGENTS else 0), np.inf
    if num_both < _MIN_TANGENTS:
        return 0, np.inf
    before, after = given.values[both], other.values[both]
    gain = before - after
    error = gain.std() / np.sqrt(num_both)
    smaller, larger = sorted((float(before.mean()), float(after.mean())))
    is_few = num_both < _FEW_TANGENTS
    ratio, least = (_GROSS_RATIO, _GROSS_GAIN) if is_few else (_CLEAR_RATIO, _CLEAR_GAIN)
    if width < _COARSE_WIDTH:
        least = max(least, 100 * _COARSE_GAIN_PIXELS / width)
    is_clear = larger > ratio * smaller and larger - smaller > least
    is_clear &= larger - smaller > _CLEAR_ERRORS * error
    return int(np.sign(gain.mean())) * is_clear, float(after.mean())
