"""The HTML of an evaluation's report: one page, no script, nothing that it would have to fetch."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from PIL import Image

from lgm.errors import shown as printable
from lgm.metrics.summary import mean_of
from lgm.metrics.table import VIEW_ID, ViewTable
from lgm.reports.columns import COLUMNS, Column, columns_of, format_number

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
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1e21; background: #fff; margin: 2rem auto;
       max-width: 1180px; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 0; }
body > h2 { margin-top: 1.6rem; }
p { margin: .3rem 0; } .quiet { color: #667; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #e2e4e8; }
th:first-child, td:first-child { text-align: left; } thead th { color: #667; font-weight: 500; }
tr.ours td { font-weight: 600; } td small { color: #667; font-weight: 400; white-space: nowrap; }
code { font-size: 13px; }
section { border: 1px solid #e2e4e8; border-radius: 8px; padding: 1rem; margin: 1.2rem 0;
          overflow-x: auto; }
section header { display: flex; gap: 1.2rem; align-items: baseline; flex-wrap: wrap; }
h2 { overflow-wrap: anywhere; }
.views { border-spacing: 4px; border-collapse: separate; margin: .6rem 0 0; }
.views th, .views td { border: 0; padding: 0; text-align: center; font-size: 13px; font-weight: 400; }
.views th:first-child { text-align: left; padding-right: .8rem; color: #667; white-space: nowrap; }
.views img, .inputs img { width: 144px; display: block; border: 1px solid #e2e4e8; border-radius: 3px; }
.inputs { display: flex; gap: 5px; margin-top: .6rem; }
.inputs video { height: 144px; border: 1px solid #e2e4e8; border-radius: 3px; }
.inputs span { font-size: 13px; color: #667; min-width: 6.5rem; }
"""


@dataclass(frozen=True)
class Thumbnail:
    """A small image inside the page, and where its full size lies beside the page."""

    data_uri: str
    href: str

    @classmethod
    def of(cls, image: Image.Image, href: str) -> Thumbnail:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        return cls(data_uri=f"data:image/jpeg;base64,{encoded}", href=quote(href))

    def html(self, alt: str) -> str:
        return f'<a href="{escape(self.href)}"><img src="{self.data_uri}" alt="{escape(alt)}"></a>'


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


def page(summary: dict, table: ViewTable, objects: Sequence[ObjectImages]) -> str:
    """The whole page, the object with the lowest PSNR first."""
    measured = dict(table.by_object())
    worst_first = sorted(measured, key=lambda uid: measured[uid].columns["psnr"].mean())
    images = {entry.uid: entry for entry in objects}
    shown = [uid for uid in worst_first if uid in images]
    sections = "\n".join(_section(images[uid], measured[uid]) for uid in shown)
    return f"""{head(f"Evaluation: {summary['protocol']}")}
<h1>Evaluation</h1>
<p>Protocol <b>{escape(summary["protocol"])}</b>, <code>{escape(summary["protocol_hash"])}</code>:
{summary["num_objects"]} objects, {summary["num_views"]} images.</p>
<p class="quiet">{escape(summary["views_definition"])}</p>
{_numbers(summary)}
<h2>The worst {min(NUM_WORST, len(measured))} of {summary["num_objects"]} objects</h2>
{_worst({uid: measured[uid] for uid in worst_first[:NUM_WORST]}, set(shown), summary)}
<p class="quiet">Below: {len(shown)} of {summary["num_objects"]} objects, the worst first. Elevations are
the object's own, azimuths are counted from the first input view. Each image links to its full size in
the folder beside this page.</p>
{sections}
</body>
</html>
"""


def head(title: str) -> str:
    """A page's beginning, up to its first words."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>"""


def interval_html(interval: Sequence[float] | None, spec: str) -> str:
    if interval is None:
        return ""
    low, high = (format_number(value, spec) for value in interval)
    return f"<br><small>{low} to {high}</small>"


def _numbers(summary: dict) -> str:
    columns, confidence = columns_of(summary), summary["confidence"]
    headings = "".join(f"<th>{column.heading}</th>" for column in columns.values())
    lines = [_line("this network", summary, columns, confidence, css="ours")]
    limit = summary["protocol_content"].get("metrics", {}).get("level_elevation_deg", 30)
    for name, values in summary["bands"].items():
        text = f"{_BAND_NAMES[name].format(limit=limit)} ({values['num_views']} images)"
        lines.append(_line(text, values, columns, {"psnr": values.get("psnr_confidence")}))
    for name, values in summary["baselines"].items():
        text = _BASELINE_NAMES[name]
        if 0 < values["num_objects"] < summary["num_objects"]:
            text += f" (on {values['num_objects']} objects)"
        lines.append(_line(text, values, columns))
    reasons = "".join(
        f'<p class="quiet">{column.heading}: {escape(reason)}.</p>'
        for name, column in COLUMNS.items()
        if (reason := summary.get(f"{name}_reason"))
    )
    return f"""<table>
<thead><tr><th>prediction</th>{headings}</tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody>
</table>
<p class="quiet">Small: {confidence["level"]:.0%} confidence interval of the mean, objects drawn anew
{confidence["resamples"]} times.</p>
{reasons}"""


def _line(
    name: str, values: dict, columns: dict[str, Column], confidence: dict | None = None, css: str = ""
) -> str:
    reason = f' <span class="quiet">({escape(values["reason"])})</span>' if values.get("reason") else ""
    cells = "".join(
        f"<td>{format_number(values.get(key), column.spec)}"
        f"{interval_html((confidence or {}).get(key), column.spec)}</td>"
        for key, column in columns.items()
    )
    return f'<tr class="{css}"><td>{escape(name)}{reason}</td>{cells}</tr>'


def _worst(measured: dict[str, ViewTable], shown: set[str], summary: dict) -> str:
    columns = columns_of(summary)
    headings = "".join(f"<th>{column.heading}</th>" for column in columns.values())
    lines = []
    for uid, views in measured.items():
        name = (
            f'<a href="#{_anchor(uid)}">{escape(printable(uid))}</a>'
            if uid in shown
            else escape(printable(uid))
        )
        cells = "".join(
            f"<td>{format_number(mean_of(views, key), column.spec)}</td>" for key, column in columns.items()
        )
        lines.append(f"<tr><td>{name}</td>{cells}</tr>")
    return f"""<table>
<thead><tr><th>object</th>{headings}</tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody>
</table>"""


def _anchor(uid: str) -> str:
    return escape("object-" + quote(uid, safe="", errors="backslashreplace"))


def _section(entry: ObjectImages, table: ViewTable) -> str:
    rows = {int(number): row for row, number in enumerate(table.columns[VIEW_ID])}
    views = [(view, rows[view.view_id]) for view in entry.views]
    inputs = "".join(image.html(f"input {i}") for i, image in enumerate(entry.inputs))
    psnr, nearest = table.columns["psnr"], table.columns["nearest_input_psnr"]
    lines = [
        _views_line("", [_angles(table, row) for _, row in views], cell="th"),
        _views_line("target", [view.target.html("target") for view, _ in views]),
        _views_line("prediction", [view.prediction.html("prediction") for view, _ in views]),
        _views_line("PSNR, dB", [f"<b>{psnr[row]:.2f}</b>" for _, row in views]),
        _views_line("alpha", [view.alpha.html("alpha") for view, _ in views]),
        _views_line("nearest input", [view.nearest_input.html("nearest input") for view, _ in views]),
        _views_line("its PSNR, dB", [f"{nearest[row]:.2f}" for _, row in views]),
    ]
    values = "\n".join(
        f"<span>{column.heading} {format_number(value, column.spec)}</span>"
        for name, column in COLUMNS.items()
        if (value := mean_of(table, name)) is not None
    )
    body = "\n".join(lines)
    return f"""<section id="{_anchor(entry.uid)}">
<header><h2>{escape(printable(entry.uid))}</h2>
{values}
<span class="quiet">mean of {len(table)} views, {len(views)} shown</span></header>
<div class="inputs"><span>inputs</span>{inputs}{_video(entry.turntable)}</div>
{_mesh(entry.mesh)}
<table class="views">
{body}
</table>
</section>"""


def _video(href: str | None) -> str:
    if href is None:
        return ""
    return f'<video src="{escape(quote(href))}" controls loop muted playsinline preload="metadata"></video>'


def _mesh(href: str | None) -> str:
    """Six sides of the mesh, in a file beside the page."""
    if href is None:
        return ""
    image = f'<img src="{escape(quote(href))}" alt="mesh from six sides" style="max-width: 100%">'
    return f'<p>mesh: front, right, back, left, top, bottom</p><a href="{escape(quote(href))}">{image}</a>'


def _views_line(heading: str, cells: Sequence[str], cell: str = "td") -> str:
    return f"<tr><th>{heading}</th>" + "".join(f"<{cell}>{text}</{cell}>" for text in cells) + "</tr>"


def _angles(table: ViewTable, row: int) -> str:
    view_id, elevation_deg, azimuth_deg = (
        table.columns[name][row] for name in (VIEW_ID, "elevation_deg", "azimuth_deg")
    )
    height = f"{abs(elevation_deg):.0f}° " + ("above" if elevation_deg >= 0 else "below")
    return f"view {view_id:.0f}<br>{height}, {azimuth_deg:.0f}° round"
