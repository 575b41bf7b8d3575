"""Paired comparison of several evaluations of the same images: differences, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lgm.metrics.bootstrap import confidence_interval
from lgm.metrics.protocol import Bootstrap, Protocol
from lgm.metrics.summary import HIGHER_IS_BETTER, METRICS, mean_of
from lgm.metrics.table import VIEW_ID, ViewTable

_SAME_TARGET_DB = 1e-3  # an empty image's PSNR on two sets of the same images


@dataclass(frozen=True)
class Evaluation:
    """The files of a run of evaluate.py. label: its name in tables. summary: its metrics.json."""

    label: str
    folder: Path
    summary: dict[str, Any]
    table: ViewTable

    @property
    def protocol(self) -> str:
        """Name and hash of the protocol, as tables show it."""
        return f"{self.summary['protocol']} ({self.summary['protocol_hash']})"


@dataclass(frozen=True)
class Difference:
    """Of one metric, another evaluation less the first: the mean over images, its interval over objects,
    and on how many objects the other is better."""

    mean: float
    interval: list[float] | None
    num_better: int
    num_objects: int


@dataclass(frozen=True)
class Comparison:
    """The first evaluation is what the others are compared with.

    differences: for each of the others, by metric. by_object: for each of the others, the difference in
        PSNR of each object.
    """

    evaluations: list[Evaluation]
    differences: list[dict[str, Difference]]
    by_object: list[dict[str, float]]


def check_same_images(evaluations: Sequence[Evaluation]) -> None:
    """Raise ValueError where two were measured on other objects, views or target images."""
    first, *others = evaluations
    for other in others:
        for one, another in ((first, other), (other, first)):
            missing = np.setdiff1d(one.table.objects, another.table.objects)
            if len(missing):
                raise ValueError(
                    f"{another.label} was not measured on {len(missing)} of the {len(one.table.objects)} "
                    f"objects of {one.label}, e.g. {str(missing[0])!r}; evaluate both on the same data"
                )
        # Rows are sorted by object and view, so that equal sets have equal columns.
        same_rows = len(first.table) == len(other.table) and np.array_equal(
            first.table.columns[VIEW_ID], other.table.columns[VIEW_ID]
        )
        if not same_rows:
            raise ValueError(
                f"{first.label} and {other.label} were measured on other views of the same objects; "
                "evaluate both on the same data"
            )
        # The PSNR of a white image depends on the targets alone: a fingerprint of them.
        off = np.abs(first.table.columns["white_psnr"] - other.table.columns["white_psnr"])
        if (off > _SAME_TARGET_DB).any():
            uid = first.table.uids[int(off.argmax())]
            raise ValueError(
                f"{first.label} and {other.label} were measured on other images of the same names, e.g. of "
                f"object {str(uid)!r}; evaluate both on the same data"
            )


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Differences of all evaluations from the first, on images that `check_same_images` let through."""
    first, *others = evaluations
    bootstrap = Protocol(first.summary["protocol_content"]).metrics.bootstrap
    pairs = [_paired(first.table, other.table) for other in others]
    return Comparison(
        evaluations=list(evaluations),
        differences=[_differences(pair, bootstrap) for pair in pairs],
        by_object=[
            {uid: float(rows.columns["psnr"].mean()) for uid, rows in pair.by_object()} for pair in pairs
        ],
    )


def _paired(first: ViewTable, other: ViewTable) -> ViewTable:
    shared = [name for name in METRICS if name in first.columns and name in other.columns]
    return ViewTable(first.uids, {name: other.columns[name] - first.columns[name] for name in shared})


def _differences(pair: ViewTable, bootstrap: Bootstrap) -> dict[str, Difference]:
    differences = {}
    for name in pair.columns:
        mean = mean_of(pair, name)
        if mean is None:
            continue
        sums, counts = pair.sums(name)
        means = sums[counts > 0]  # of one sign with the means
        better = means > 0 if HIGHER_IS_BETTER.get(name) else means < 0
        interval = confidence_interval(pair, name, bootstrap)
        differences[name] = Difference(mean, interval, int(better.sum()), len(means))
    return differences
