"""One row a picture, and the tables that are made of rows.

Rows are plain values, so that ranks can send them to each other and a file can hold them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

BASELINES = ("untrained", "white", "nearest_input")
VIEWS_DEFINITION = (
    "Each number is the mean over all pictures (num_views of them, of num_objects objects) of the "
    "picture's own value, on target views that were never inputs."
)


@dataclass(frozen=True)
class ViewRow:
    """What was measured on one target view of one object.

    elevation_deg, azimuth_deg: in the network's frame, where the first input view is at 0, 0.
    lpips: None where it was not computed.
    baselines: for each baseline that ran, its "psnr" and "ssim" on the same view.
    """

    uid: str
    view_id: int
    elevation_deg: float
    azimuth_deg: float
    psnr: float
    ssim: float
    alpha_iou: float
    lpips: float | None = None
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def unique(rows: Iterable[ViewRow]) -> list[ViewRow]:
    """Rows sorted by object and view, each view once: a sampler that pads its ranks to one length
    sends some objects twice."""
    return [row for _, row in sorted({(row.uid, row.view_id): row for row in rows}.items())]


def by_object(rows: Iterable[ViewRow]) -> dict[str, list[ViewRow]]:
    objects: dict[str, list[ViewRow]] = {}
    for row in rows:
        objects.setdefault(row.uid, []).append(row)
    return objects


def mean_of(rows: Sequence[ViewRow], value: Callable[[ViewRow], float | None]) -> float | None:
    """The mean over the rows; None as soon as one row lacks the value."""
    values = [number for row in rows if (number := value(row)) is not None]
    return fmean(values) if values and len(values) == len(rows) else None


def baseline_mean(rows: Sequence[ViewRow], baseline: str, metric: str) -> float | None:
    return mean_of(rows, lambda row: row.baselines.get(baseline, {}).get(metric))


def summarise(
    rows: Sequence[ViewRow], protocol: str, lpips_reason: str | None, missing: Mapping[str, str]
) -> dict:
    """What `metrics.json` says.

    lpips_reason: why there is no LPIPS; None where there is.
    missing: why a baseline did not run, by its name.
    """
    baselines = {}
    for name in BASELINES:
        baselines[name] = {metric: baseline_mean(rows, name, metric) for metric in ("psnr", "ssim")}
        if name in missing:
            baselines[name]["reason"] = missing[name]
    return {
        "psnr": mean_of(rows, lambda row: row.psnr),
        "ssim": mean_of(rows, lambda row: row.ssim),
        "lpips": mean_of(rows, lambda row: row.lpips),
        "lpips_reason": lpips_reason,
        "alpha_iou": mean_of(rows, lambda row: row.alpha_iou),
        "num_objects": len(by_object(rows)),
        "num_views": len(rows),
        "protocol": protocol,
        "baselines": baselines,
        "views_definition": VIEWS_DEFINITION,
    }


def per_object_table(rows: Sequence[ViewRow]) -> list[dict]:
    return [
        {
            "uid": uid,
            "num_views": len(views),
            "psnr": mean_of(views, lambda row: row.psnr),
            "ssim": mean_of(views, lambda row: row.ssim),
            "lpips": mean_of(views, lambda row: row.lpips),
            "alpha_iou": mean_of(views, lambda row: row.alpha_iou),
            **{f"{name}_psnr": baseline_mean(views, name, "psnr") for name in BASELINES},
        }
        for uid, views in by_object(rows).items()
    ]


def per_view_table(rows: Sequence[ViewRow]) -> list[dict]:
    columns = ["uid", "view_id", "elevation_deg", "azimuth_deg", "psnr", "ssim", "lpips", "alpha_iou"]
    return [
        {column: getattr(row, column) for column in columns}
        | {
            f"{name}_{metric}": row.baselines.get(name, {}).get(metric)
            for name in BASELINES
            for metric in ("psnr", "ssim")
        }
        for row in rows
    ]


def write_table(path: Path, table: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV; numbers to 6 digits, what is not known as an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        for line in table:
            writer.writerow({name: _cell(value) for name, value in line.items()})


def _cell(value: object) -> object:
    return f"{value:.6f}" if isinstance(value, float) else value
