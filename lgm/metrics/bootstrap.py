"""How far a mean could lie elsewhere with other objects of the same kind."""

from __future__ import annotations

import numpy as np

from lgm.metrics.protocol import Bootstrap
from lgm.metrics.table import ViewTable

_CELLS = 1 << 24  # drawn numbers held at a time


def confidence_interval(table: ViewTable, name: str, options: Bootstrap) -> list[float] | None:
    """[low, high] for the mean of a column over pictures; None for fewer than two objects.

    Objects are drawn, not pictures: views of one object resemble each other, and intervals that took
    them for independent would be several times too narrow.
    """
    if name not in table.columns:
        return None
    sums, counts = table.sums(name)
    sums, counts = sums[counts > 0], counts[counts > 0]
    if len(sums) < 2:
        return None
    means = resampled_means(sums, counts, options)
    tail = (1 - options.confidence) / 2
    return [float(value) for value in np.quantile(means, [tail, 1 - tail])]


def resampled_means(sums: np.ndarray, counts: np.ndarray, options: Bootstrap) -> np.ndarray:
    """The mean over all pictures in each of `resamples` draws of as many objects as there are."""
    rng = np.random.default_rng(options.seed)
    num_objects = len(sums)
    means, at_once = [], max(1, _CELLS // num_objects)
    for start in range(0, options.resamples, at_once):
        draws = min(at_once, options.resamples - start)
        drawn = rng.integers(num_objects, size=(draws, num_objects))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
