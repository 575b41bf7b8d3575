"""The HTML of a comparison: one page, in the style of an evaluation's report."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from lgm.errors import shown
from lgm.metrics.comparison import Comparison, Difference
from lgm.reports.columns import columns_of, format_number
from lgm.reports.evaluation_page import head, interval_html

_SHOWN_OBJECTS = 10


def comparison_page(comparison: Comparison, folder: Path) -> str:
    """folder: where the page will lie; it links to the evaluations' own reports from there."""
    first = comparison.evaluations[0]
    return f"""{head(f"Comparison: {first.summary['protocol']}")}
<h1>Comparison</h1>
<p>Protocol <b>{escape(first.summary["protocol"])}</b>,
<code>{escape(first.summary["protocol_hash"])}</code>: {first.summary["num_objects"]} objects,
{first.summary["num_views"]} images, the same for all.</p>
{_values(comparison, folder)}
<h2>Differences from {escape(first.label)}, image by image</h2>
{_differences(comparison)}
<p class="quiet">Small: {first.summary["confidence"]["level"]:.0%} confidence interval of the mean
difference, objects drawn anew {first.summary["confidence"]["resamples"]} times. One that leaves 0 out is
no accident of which objects were measured.</p>
{_objects(comparison)}
</body>
</html>
"""


def _values(comparison: Comparison, folder: Path) -> str:
    columns = columns_of(comparison.evaluations[0].summary)
    lines = []
    for index, evaluation in enumerate(comparison.evaluations):
        confidence = evaluation.summary["confidence"]
        cells = "".join(
            f"<td>{format_number(evaluation.summary.get(name), column.spec)}"
            f"{interval_html(confidence.get(name), column.spec)}</td>"
            for name, column in columns.items()
        )
        report = evaluation.folder / "report.html"
        name = escape(evaluation.label)
        if report.is_file():
            href = quote(Path(os.path.relpath(report, folder)).as_posix())
            name = f'<a href="{escape(href)}">{name}</a>'
        lines.append(f'<tr class="{"ours" if index == 0 else ""}"><td>{name}</td>{cells}</tr>')
    return _table("checkpoint", [column.heading for column in columns.values()], lines)


def _differences(comparison: Comparison) -> str:
    columns = columns_of(comparison.evaluations[0].summary)
    lines = []
    for evaluation, found in zip(comparison.evaluations[1:], comparison.differences, strict=True):
        cells = "".join(_difference(found.get(name), "+" + column.spec) for name, column in columns.items())
        lines.append(f"<tr><td>{escape(evaluation.label)}</td>{cells}</tr>")
    return _table("checkpoint", [column.heading for column in columns.values()], lines)


def _difference(found: Difference | None, spec: str) -> str:
    if found is None:
        return "<td>–</td>"
    better = f"<br><small>better on {found.num_better} of {found.num_objects}</small>"
    return f"<td>{format_number(found.mean, spec)}{interval_html(found.interval, spec)}{better}</td>"


def _objects(comparison: Comparison) -> str:
    """For each of the others, the objects that lost and gained most."""
    first = {uid: rows.columns["psnr"].mean() for uid, rows in comparison.evaluations[0].table.by_object()}
    parts = []
    for evaluation, by_object in zip(comparison.evaluations[1:], comparison.by_object, strict=True):
        ranked = sorted(by_object, key=lambda uid: by_object[uid])
        chosen = ranked
        if len(ranked) > 2 * _SHOWN_OBJECTS:
            chosen = [*ranked[:_SHOWN_OBJECTS], *ranked[-_SHOWN_OBJECTS:]]
        lines = [
            f"<tr><td>{escape(shown(uid))}</td><td>{first[uid]:.2f}</td>"
            f"<td>{first[uid] + by_object[uid]:.2f}</td><td>{by_object[uid]:+.2f}</td></tr>"
            for uid in chosen
        ]
        title = (
            f"{escape(evaluation.label)}: objects that lost and gained most, {len(chosen)} of {len(ranked)}"
        )
        headings = ["PSNR of the first, dB", "its PSNR, dB", "difference, dB"]
        parts.append(f"<h2>{title}</h2>\n{_table('object', headings, lines)}")
    return "\n".join(parts)


def _table(first: str, headings: list[str], lines: list[str]) -> str:
    cells = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "\n".join(lines)
    return f"""<table>
<thead><tr><th>{first}</th>{cells}</tr></thead>
<tbody>
{body}
</tbody>
</table>"""
