"""Bootstrap confidence intervals (Efron 1979) of means over images, resampled by object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lgm.metrics.protocol import Bootstrap
from lgm.metrics.table import ViewTable


def confidence_intervals(
    table: ViewTable, names: Sequence[str], options: Bootstrap
) -> dict[str, list[float] | None]:
    """[low, high] for the mean over images of each of some columns; None for fewer than two objects.

    Objects are drawn, not images: views of one object resemble each other, and intervals that took
    them for independent would be several times too narrow.
    """
    intervals: dict[str, list[float] | None] = dict.fromkeys(names)
    sums = {name: table.sums(name) for name in names if name in table.columns}
    # One resampling serves all columns that are known of the same objects: a matrix product per draw.
    alike: dict[bytes, list[str]] = {}  # columns that the same objects have
    for name, (_, counts) in sums.items():
        alike.setdefault(np.packbits(counts > 0).tobytes(), []).append(name)
    tail = (1 - options.confidence) / 2
    for together in alike.values():
        known = sums[together[0]][1] > 0
        if known.sum() < 2:
            continue
        totals, counts = (np.stack([sums[name][i][known] for name in together]) for i in (0, 1))
        for name, means in zip(together, resampled_means(totals, counts, options), strict=True):
            intervals[name] = [float(value) for value in np.quantile(means, [tail, 1 - tail])]
    return intervals


def confidence_interval(table: ViewTable, name: str, options: Bootstrap) -> list[float] | None:
    """`confidence_intervals` of one column."""
    return confidence_intervals(table, [name], options)[name]


def resampled_means(sums: np.ndarray, counts: np.ndarray, options: Bootstrap) -> np.ndarray:
    """The means over all images in each of `resamples` draws of as many objects as there are.

    sums, counts: [K, N], of K columns and N objects. Returns [K, resamples]; a draw is that of all columns.
    """
    rng = np.random.default_rng(options.seed)
    num_columns, num_objects = sums.shape
    both = np.concatenate([sums, counts])  # [2K, N]
    totals = np.empty((len(both), options.resamples))
    for draw in range(options.resamples):
        drawn = rng.integers(num_objects, size=num_objects)
        times = np.bincount(drawn, minlength=num_objects).astype(np.float64)  # how often each was drawn
        # Sums and counts of a draw with replacement, without gathering the drawn rows.
        totals[:, draw] = both @ times
    return totals[:num_columns] / totals[num_columns:]
