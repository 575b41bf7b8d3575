"""The page of a comparison of evaluations, in the style of an evaluation's report."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from lgm.metrics.comparison import Comparison, Evaluation
from lgm.reports.columns import columns_of
from lgm.reports.compared_objects import compared_objects
from lgm.reports.pages import render
from lgm.reports.portable import portable_argument

_SHOWN_OBJECTS = 10


def comparison_page(comparison: Comparison, folder: Path) -> str:
    """folder: where the page will lie; it links to the evaluations' own reports from there."""
    comparison = replace(comparison, evaluations=[_mailed(e) for e in comparison.evaluations])
    first, *others = comparison.evaluations
    return render(
        "comparison.html",
        columns=columns_of(first.summary),
        compared=compared_objects(comparison),
        first=first,
        evaluations=[_evaluation(evaluation, folder) for evaluation in comparison.evaluations],
        others=[
            {
                "label": evaluation.label,
                "differences": differences,
                "objects": _objects(first, by_object),
                "num_objects": len(by_object),
            }
            for evaluation, differences, by_object in zip(
                others, comparison.differences, comparison.by_object, strict=True
            )
        ],
    )


def _mailed(evaluation: Evaluation) -> Evaluation:
    """The same under a label without folders of the machine."""
    if not Path(evaluation.label).is_absolute():
        return evaluation
    return replace(evaluation, label=portable_argument(evaluation.label))


def _evaluation(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    report = evaluation.folder / "report.html"
    path = Path(os.path.relpath(report, folder)).as_posix() if report.is_file() else None
    return {"label": evaluation.label, "summary": evaluation.summary, "report": path}


def _objects(first: Evaluation, by_object: dict[str, float]) -> list[dict[str, Any]]:
    """The objects that lost and gained most."""
    means = {uid: rows.columns["psnr"].mean() for uid, rows in first.table.by_object()}
    ranked = sorted(by_object, key=lambda uid: by_object[uid])
    # Few enough are all shown, each once.
    if len(ranked) > 2 * _SHOWN_OBJECTS:
        ranked = [*ranked[:_SHOWN_OBJECTS], *ranked[-_SHOWN_OBJECTS:]]
    return [
        {
            "uid": uid,
            "first": means[uid],
            "other": means[uid] + by_object[uid],
            "difference": by_object[uid],
        }
        for uid in ranked
    ]
