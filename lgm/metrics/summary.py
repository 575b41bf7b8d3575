"""Summary of an evaluation: from rows per image to `metrics.json`, `per_object.csv` and `per_view.csv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lgm.metrics.bootstrap import confidence_interval, confidence_intervals
from lgm.metrics.protocol import Protocol
from lgm.metrics.table import VIEW_ID, ViewTable

METRICS = ("psnr", "ssim", "lpips", "lpips_alex", "alpha_iou", "depth_l1")
BASELINES = ("untrained", "white", "nearest_input")
BASELINE_METRICS = ("psnr", "ssim")
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "alpha_iou": True}
# Known of some images only, by their nature: of those that have depth and show something.
_PARTLY = ("depth_l1",)
VIEWS_DEFINITION = (
    "Each number is the mean over all images (num_views of them, of num_objects objects) of the "
    "image's own value, on target views that were never inputs."
)


def summarise(table: ViewTable, protocol: Protocol, reasons: Mapping[str, str]) -> dict[str, Any]:
    """The content of `metrics.json`: means, confidence intervals, elevation bands and baselines.

    reasons: why a metric or a baseline is not there, by its name.
    """
    overall: dict[str, Any] = {}
    for name in METRICS:
        overall[name] = mean_of(table, name)
        if overall[name] is None or name == "lpips":
            overall[f"{name}_reason"] = _reason(table, name, overall[name], reasons)
    bootstrap = protocol.metrics.bootstrap
    return {
        **overall,
        "num_objects": len(table.objects),
        "num_views": len(table),
        "protocol": protocol.name,
        "protocol_hash": protocol.hash,
        "confidence": {
            "level": bootstrap.confidence,
            "resamples": bootstrap.resamples,
            **confidence_intervals(table, METRICS, bootstrap),
        },
        "bands": {name: _band(rows, protocol) for name, rows in bands(table, protocol).items()},
        "baselines": {name: _baseline(table, name, reasons) for name in BASELINES},
        "views_definition": VIEWS_DEFINITION,
        "protocol_content": protocol.content,
    }


def mean_of(table: ViewTable, name: str) -> float | None:
    """The mean of a metric over all images; None where one lacks it, but for metrics that only some images
    have.
    """
    return table.mean(name, partly=name in _PARTLY)


def bands(table: ViewTable, protocol: Protocol) -> dict[str, ViewTable]:
    """The rows by the elevation of their cameras: level with the object, above, below."""
    limit = protocol.metrics.level_elevation_deg
    # A camera on the limit belongs to the level ones, whichever way it was rounded.
    elevation = table.columns["elevation_deg"].round(3)
    return {
        "level": table[np.abs(elevation) <= limit],
        "above": table[elevation > limit],
        "below": table[elevation < -limit],
    }


def per_object(table: ViewTable, protocol: Protocol) -> list[dict[str, object]]:
    """One line an object, each with its protocol."""
    columns = {
        **{name: table.object_means(name, partly=name in _PARTLY) for name in METRICS},
        **{f"{name}_psnr": table.object_means(f"{name}_psnr") for name in BASELINES},
    }
    lines = zip(table.objects, table.num_views, *columns.values(), strict=True)
    return [
        {
            "uid": str(uid),
            "num_views": int(num_views),
            **dict(zip(columns, values, strict=True)),
            "protocol": protocol.name,
            "protocol_hash": protocol.hash,
        }
        for uid, num_views, *values in lines
    ]


def per_view(table: ViewTable, protocol: Protocol) -> Iterator[dict[str, object]]:
    """One line an image, made as it is asked for: there may be millions."""
    names = ["elevation_deg", "azimuth_deg", *METRICS]
    names += [f"{name}_{metric}" for name in BASELINES for metric in BASELINE_METRICS]
    columns = [table.columns.get(name, np.full(len(table), np.nan)) for name in names]
    for uid, view_id, *values in zip(table.uids, table.columns[VIEW_ID], *columns, strict=True):
        yield {
            "uid": str(uid),
            VIEW_ID: int(view_id),
            **dict(zip(names, values, strict=True)),
            "protocol": protocol.name,
            "protocol_hash": protocol.hash,
        }


def _reason(table: ViewTable, name: str, value: float | None, reasons: Mapping[str, str]) -> str | None:
    if value is not None:
        return None
    if name == "psnr" and name in table.columns:  # which every image has
        is_nan = np.isnan(table.columns[name])
        uids = np.unique(table.uids[is_nan])
        return f"NaN for {int(is_nan.sum())} of {len(table)} images, of {len(uids)} objects, e.g. {uids[0]}"
    return reasons.get(name, "not measured")


def _band(rows: ViewTable, protocol: Protocol) -> dict[str, Any]:
    counts = {"num_views": len(rows), "num_objects": len(rows.objects)}
    if not len(rows):
        empty = "no target view of these data lies in this band"
        return {**dict.fromkeys(METRICS), **counts, "reason": empty}
    interval = confidence_interval(rows, "psnr", protocol.metrics.bootstrap)
    return {**{name: mean_of(rows, name) for name in METRICS}, **counts, "psnr_confidence": interval}


def _baseline(table: ViewTable, name: str, reasons: Mapping[str, str]) -> dict[str, Any]:
    if f"{name}_psnr" not in table.columns:
        return {**dict.fromkeys(BASELINE_METRICS), "num_objects": 0, "reason": reasons.get(name)}
    known = table[~np.isnan(table.columns[f"{name}_psnr"])]
    means = {metric: known.mean(f"{name}_{metric}") for metric in BASELINE_METRICS}
    return {**means, "num_objects": len(known.objects)}
