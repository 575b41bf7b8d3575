"""Which views are compared with which: all of a few, a fair share of many."""

from __future__ import annotations

import numpy as np

_ALL_UP_TO = 24
_PARTNERS = 12


def choose_pairs(num_views: int) -> np.ndarray:
    """[P, 2] pairs of views; with many views each still has 24 partners."""
    if num_views <= _ALL_UP_TO:
        return np.stack(np.triu_indices(num_views, 1), axis=1)
    one = np.arange(num_views)
    steps = np.unique(np.linspace(1, (num_views - 1) // 2, _PARTNERS).round().astype(int))
    return np.concatenate([np.stack([one, (one + step) % num_views], axis=1) for step in steps])


def spread_over(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` numbers below count, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))
