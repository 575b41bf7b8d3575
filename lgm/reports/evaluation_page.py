"""The page of an evaluation's report: `report.html`, one file, nothing that it would have to fetch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lgm.metrics.summary import HIGHER_IS_BETTER, mean_of
from lgm.metrics.table import VIEW_ID, ViewTable
from lgm.reports import error_map
from lgm.reports.columns import COLUMNS, columns_of
from lgm.reports.pages import render
from lgm.reports.portable import portable
from lgm.reports.shown_object import ObjectImages

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
NUM_WORST = 10  # objects that are shown in any case
_MOST_ROWS = 2000  # of the table of objects: a browser lays out so many in less than a second


@dataclass(frozen=True)
class _Line:
    """One row of the table of predictions: metrics and their intervals, by name."""

    name: str
    metrics: Mapping[str, Any]
    intervals: Mapping[str, Sequence[float] | None]
    reason: str | None = None


def page(
    summary: dict,
    table: ViewTable,
    objects: Sequence[ObjectImages],
    provenance: Mapping[str, str] | None = None,
) -> str:
    """The whole page, the object with the lowest PSNR first.

    provenance: what made it, by its label: weights, model, data, date, command.
    """
    measured = dict(table.by_object())
    worst_first = sorted(measured, key=lambda uid: measured[uid].columns["psnr"].mean())
    images = {entry.uid: entry for entry in objects}
    return render(
        "evaluation.html",
        provenance=provenance or {},
        summary=summary,
        columns=columns_of(summary),
        higher_is_better=HIGHER_IS_BETTER,
        lines=_lines(summary),
        reasons={
            column.heading: portable(summary[key])
            for name, column in COLUMNS.items()
            if summary.get(key := f"{name}_reason")
        },
        rows=[
            {"uid": uid, "is_shown": uid in images, "means": _means(measured[uid])}
            for uid in worst_first[:_MOST_ROWS]
        ],
        **_shown([_section(images[uid], measured[uid]) for uid in worst_first if uid in images]),
    )


def page_without_numbers(
    reason: str,
    objects: Sequence[ObjectImages],
    num_objects: int,
    provenance: Mapping[str, str] | None = None,
) -> str:
    """The page of objects that have no images besides their inputs.

    reason: why nothing was measured. num_objects: shown or not.
    """
    return render(
        "unmeasured.html",
        provenance=provenance or {},
        reason=reason,
        num_objects=num_objects,
        **_shown([_section(images, None) for images in objects]),
    )


def _shown(sections: list[dict[str, Any]]) -> dict[str, Any]:
    """Values that every page with sections of objects needs."""
    return {
        "sections": sections,
        "num_orbits": sum(section["images"].orbit is not None for section in sections),
        "error_colors": error_map.css_gradient(),
        "largest_error": error_map.LARGEST,
    }


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


def _section(images: ObjectImages, table: ViewTable | None) -> dict[str, Any]:
    """An object's images, each measured view's with its numbers."""
    views: list[dict[str, Any]] = [dict(vars(view)) for view in images.views]
    if table is not None:
        rows = {int(number): row for row, number in enumerate(table.columns[VIEW_ID])}
        names = ("elevation_deg", "azimuth_deg", "psnr", "nearest_input_psnr")
        for view in views:
            row = rows[view["view_id"]]
            view |= {name: float(table.columns[name][row]) for name in names}
    return {
        "uid": images.uid,
        "images": images,
        "views": views,
        "means": None if table is None else _means(table),
        "num_views": 0 if table is None else len(table),
    }
