"""Mistakes of all cameras that silhouettes cannot see and colours can: a painted ball upside down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_tools.reprojection.colored import ColoredViews
from data_tools.reprojection.colors import view_errors
from data_tools.reprojection.hull_points import find_surface
from data_tools.reprojection.hypotheses import Hypothesis

# A hypothesis wins where the views' errors shrink to this share, and by five standard errors. Measured on the
# 75 bundled objects: what is right has 0.69 to 0.77 of what is wrong, and 6 to 14 standard errors.
_CLEAR_RATIO, _CLEAR_ERRORS = 0.85, 5.0
_MIN_VIEWS = 8


def find_turned(
    colored: ColoredViews, hypotheses: Sequence[Hypothesis]
) -> tuple[Hypothesis, float, float] | None:
    """That of the hypotheses which colours say is true, with the mean difference of colours in 0..1 before
    and after; None where none is. Other fields of view are not asked for: colours see them less well."""
    hypotheses = [hypothesis for hypothesis in hypotheses if hypothesis.widening == 1]
    if not hypotheses or not len(colored.numbers):
        return None
    given = view_errors(colored.images, colored.c2w, colored.surface)
    best = None
    for hypothesis in hypotheses:
        other = _errors(hypothesis, colored)
        both = np.isfinite(given) & np.isfinite(other)
        if both.sum() < max(_MIN_VIEWS, np.isfinite(given).sum() / 2):
            continue
        before, after = given[both].mean(), other[both].mean()
        error = (given - other)[both].std() / np.sqrt(both.sum())
        is_clear = after < _CLEAR_RATIO * before and before - after > _CLEAR_ERRORS * error
        if is_clear and (best is None or after < best[2]):
            best = hypothesis, float(before), float(after)
    return best


def _errors(hypothesis: Hypothesis, colored: ColoredViews) -> np.ndarray:
    """[W] the views' errors if the hypothesis were true."""
    right, down = (int(sign) for sign in hypothesis.signs)
    images, c2w = colored.images[:, ::down, ::right], hypothesis.poses(colored.c2w)
    return view_errors(images, c2w, find_surface(images[..., 3], c2w, colored.fov_y_deg, colored.carves))
