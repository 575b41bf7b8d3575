"""Which views are compared with which: all of a few, a fair share of many."""

from __future__ import annotations

import numpy as np

_ALL_UP_TO = 24
_PARTNERS = 12
# Of many views the first ones, where the canonical ones stand, and a fair share of the rest.
_MIN_COLORED, _FIRST_COLORED, _REST_COLORED = 8, 4, 32


def choose_pairs(num_views: int) -> np.ndarray:
    """[P, 2] pairs of views; with many views each still has 24 partners."""
    if num_views <= _ALL_UP_TO:
        return np.stack(np.triu_indices(num_views, 1), axis=1)
    one = np.arange(num_views)
    steps = np.unique(np.linspace(1, (num_views - 1) // 2, _PARTNERS).round().astype(int))
    return np.concatenate([np.stack([one, (one + step) % num_views], axis=1) for step in steps])


def spread_over(count: int, requested: int) -> np.ndarray:
    """At most `wanted` numbers below count, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, requested)).round().astype(int))


def choose_views(is_whole: np.ndarray) -> np.ndarray:
    """Numbers of the views whose colours are compared, of V that are whole or not; none of too few."""
    views = np.flatnonzero(is_whole)
    if len(views) < _MIN_COLORED:
        return views[:0]
    rest = _FIRST_COLORED + spread_over(len(views) - _FIRST_COLORED, _REST_COLORED)
    return views[np.r_[:_FIRST_COLORED, rest]]
