"""What an evaluation's report shows: `report.html`, one page, nothing that it would have to fetch."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from lgm.metrics.summary import mean_of
from lgm.metrics.table import VIEW_ID, ViewTable
from lgm.reports.columns import COLUMNS, columns_of
from lgm.reports.pages import render

_JPEG_QUALITY = 88
_BASELINE_NAMES = {
    "untrained": "the network before training",
    "white": "an empty white image",
    "nearest_input": "the nearest input view, copied",
}
_BAND_NAMES = {
    "level": "cameras level with the object, |elevation| ≤ {limit:g}°",
    "above": "from above, elevation > {limit:g}°",
    "below": "from below, elevation < −{limit:g}°",
}
NUM_WORST = 10


@dataclass(frozen=True)
class Thumbnail:
    """A small image inside the page, and where its full size lies beside the page."""

    data_uri: str
    path: str

    @classmethod
    def of(cls, image: Image.Image, path: str) -> Thumbnail:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        return cls(f"data:image/jpeg;base64,{encoded}", path)


@dataclass(frozen=True)
class ViewImages:
    view_id: int
    target: Thumbnail
    prediction: Thumbnail
    alpha: Thumbnail
    nearest_input: Thumbnail


@dataclass(frozen=True)
class ObjectImages:
    uid: str
    inputs: Sequence[Thumbnail]
    views: Sequence[ViewImages]
    turntable: str | None = None  # where a video of it lies beside the page
    mesh: str | None = None  # where an image of its mesh lies beside the page
    mesh_numbers: Mapping[str, Any] | None = None  # as of `lgm.callbacks.evaluation.mesh.MeshNumbers`


@dataclass(frozen=True)
class _Line:
    """One row of the table of predictions: metrics and their intervals, by name."""

    name: str
    metrics: Mapping[str, Any]
    intervals: Mapping[str, Sequence[float] | None]
    reason: str | None = None


def page(summary: dict, table: ViewTable, objects: Sequence[ObjectImages]) -> str:
    """The whole page, the object with the lowest PSNR first."""
    measured = dict(table.by_object())
    worst_first = sorted(measured, key=lambda uid: measured[uid].columns["psnr"].mean())
    images = {entry.uid: entry for entry in objects}
    columns = columns_of(summary)
    return render(
        "evaluation.html",
        summary=summary,
        columns=columns,
        lines=_lines(summary),
        reasons={c.heading: summary[key] for n, c in COLUMNS.items() if summary.get(key := f"{n}_reason")},
        worst=[
            {"uid": uid, "is_shown": uid in images, "means": _means(measured[uid])}
            for uid in worst_first[:NUM_WORST]
        ],
        sections=[_section(images[uid], measured[uid]) for uid in worst_first if uid in images],
    )


def _lines(summary: dict) -> list[_Line]:
    lines = [_Line("this network", summary, summary["confidence"])]
    limit = summary["protocol_content"].get("metrics", {}).get("level_elevation_deg", 30)
    for name, band in summary["bands"].items():
        text = f"{_BAND_NAMES[name].format(limit=limit)} ({band['num_views']} images)"
        lines.append(_Line(text, band, {"psnr": band.get("psnr_confidence")}, band.get("reason")))
    for name, baseline in summary["baselines"].items():
        text = _BASELINE_NAMES[name]
        if 0 < baseline["num_objects"] < summary["num_objects"]:
            text += f" (on {baseline['num_objects']} objects)"
        lines.append(_Line(text, baseline, {}, baseline.get("reason")))
    return lines


def _means(table: ViewTable) -> dict[str, float | None]:
    return {name: mean_of(table, name) for name in COLUMNS}


def _section(images: ObjectImages, table: ViewTable) -> dict[str, Any]:
    """An object's images, each view's with its numbers."""
    rows = {int(number): row for row, number in enumerate(table.columns[VIEW_ID])}
    names = ("elevation_deg", "azimuth_deg", "psnr", "nearest_input_psnr")
    views = [
        {**vars(view), **{name: float(table.columns[name][rows[view.view_id]]) for name in names}}
        for view in images.views
    ]
    return {
        "uid": images.uid,
        "images": images,
        "views": views,
        "means": _means(table),
        "num_views": len(table),
    }
