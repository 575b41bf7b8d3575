"""Images that silhouettes take for each other and colours do not: front and back of most things.

Two images are exchanged where each fits clearly better at the other's camera, and then as well as the
object's images usually do. They are told apart by their pattern, whatever their brightness; or by their
brightness, where the views of the object else agree on it: lamps that stand still make each side bright or
dark in all views, lamps that go round with the camera do not, and must fault nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data_tools.reprojection.colored import ColoredViews
from data_tools.reprojection.colors import color_errors

# The larger of the two errors after the exchange, as a share of that before; and by how much it falls
# (colours in 0..1). Measured on 819 pieces of furniture and 75 bundled objects: docs/data-tools/verify.md.
_CLEAR_RATIO, _CLEAR_GAIN = 0.75, 0.006
_NO_WORSE_RATIO = 0.9
# After the exchange errors are at most so many times the median image's.
_USUAL_RATIO = 1.2
# How much brightness is off (its logarithm) in the median image: lamps that stand still, 0.01 to 0.03; that
# go round with the camera, 0.02 to 0.08; others for each image, 0.06 to 0.13.
_STEADY, _CHANGING = 0.03, 0.06
# An exchange that brightness alone shows undoes so much of it, and so many times what is usual.
_BRIGHTER, _BRIGHTER_RATIO = 0.08, 2.5


def find_exchanged(colored: ColoredViews) -> Iterator[str]:
    """A line for each view whose image belongs to another's camera."""
    views = colored.numbers
    if not len(views):
        return
    errors = color_errors(colored.images, colored.c2w, colored.surface)
    usual = np.diagonal(errors.gains[0])
    if np.isnan(usual).all():
        return
    usual = np.nanmedian(np.abs(usual))
    if usual > _CHANGING:
        return
    by_pattern = _fits_better(errors.adapted) & (_ratio(errors.plain) < _NO_WORSE_RATIO)
    brighter = _lesser(np.abs(errors.gains[0]) - np.abs(errors.gains[1]))
    by_brightness = _fits_better(errors.plain) & (brighter > max(_BRIGHTER, _BRIGHTER_RATIO * usual))
    is_found = by_pattern | (by_brightness if usual < _STEADY else False)
    ratio = np.where(is_found, _ratio(errors.plain), np.inf)
    while np.isfinite(ratio).any():
        one, two = sorted(np.unravel_index(ratio.argmin(), ratio.shape))
        for view, other in ((one, two), (two, one)):
            before, after = errors.plain[:, view, other] * 100
            yield (
                f"view {views[view]}: its image does not match its camera but that of view {views[other]} "
                f"(colours differ by {before:.1f} % from other views, then by {after:.1f})"
            )
        ratio[[one, two]] = ratio[:, [one, two]] = np.inf


def _lesser(values: np.ndarray) -> np.ndarray:
    """Of the two views of a pair the lesser value, [V, V]; NaN where one is."""
    return np.minimum(values, values.T)


def _ratio(errors: np.ndarray) -> np.ndarray:
    return -_lesser(-errors[1] / np.maximum(errors[0], 1e-4))


def _fits_better(errors: np.ndarray) -> np.ndarray:
    """[2, V, V] of ColorErrors -> [V, V], whether both images fit clearly better once exchanged."""
    after = -_lesser(-errors[1])
    is_usual = after < _USUAL_RATIO * np.nanmedian(np.diagonal(errors[0]))
    return is_usual & (_ratio(errors) < _CLEAR_RATIO) & (_lesser(errors[0] - errors[1]) > _CLEAR_GAIN)
