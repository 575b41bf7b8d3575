"""The HTML of an evaluation's report: one page, no script, nothing that it would have to fetch."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean
from urllib.parse import quote

from PIL import Image

from lgm.callbacks.measure import format_number
from lgm.metrics.rows import ViewRow, by_object, mean_of

_JPEG_QUALITY = 88
_BASELINE_NAMES = {
    "untrained": "the network before training",
    "white": "an empty white picture",
    "nearest_input": "the nearest input view, copied",
}
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1e21; background: #fff; margin: 2rem auto;
       max-width: 1180px; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 0; }
p { margin: .3rem 0; } .quiet { color: #667; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #e2e4e8; }
th:first-child, td:first-child { text-align: left; } thead th { color: #667; font-weight: 500; }
tr.ours td { font-weight: 600; }
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
    """A small picture inside the page, and where its full size lies beside the page."""

    data_uri: str
    href: str

    @classmethod
    def of(cls, picture: Image.Image, href: str) -> Thumbnail:
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        return cls(data_uri=f"data:image/jpeg;base64,{encoded}", href=quote(href))

    def html(self, alt: str) -> str:
        return f'<a href="{escape(self.href)}"><img src="{self.data_uri}" alt="{escape(alt)}"></a>'


@dataclass(frozen=True)
class ViewPictures:
    view_id: int
    target: Thumbnail
    prediction: Thumbnail
    alpha: Thumbnail
    nearest_input: Thumbnail


@dataclass(frozen=True)
class ObjectPictures:
    uid: str
    inputs: Sequence[Thumbnail]
    views: Sequence[ViewPictures]
    turntable: str | None = None  # where a video of it lies beside the page


def page(summary: dict, rows: Sequence[ViewRow], objects: Sequence[ObjectPictures]) -> str:
    """The whole page, the object with the lowest PSNR first."""
    measured = by_object(rows)
    shown = sorted(
        (entry for entry in objects if entry.uid in measured),
        key=lambda entry: fmean(row.psnr for row in measured[entry.uid]),
    )
    sections = "\n".join(_section(entry, measured[entry.uid]) for entry in shown)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation: {escape(summary["protocol"])}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Evaluation</h1>
<p>Protocol <b>{escape(summary["protocol"])}</b>: {summary["num_objects"]} objects,
{summary["num_views"]} pictures.</p>
<p class="quiet">{escape(summary["views_definition"])}</p>
{_numbers(summary)}
<p class="quiet">Below: {len(shown)} of {summary["num_objects"]} objects, the worst first. Angles are
relative to the first input view. Each picture links to its full size in the folder beside this page.</p>
{sections}
</body>
</html>
"""


def _numbers(summary: dict) -> str:
    ours = _line("this network", summary, css="ours")
    others = "\n".join(_line(_BASELINE_NAMES[name], values) for name, values in summary["baselines"].items())
    reason = summary["lpips_reason"]
    note = f'<p class="quiet">LPIPS: {escape(reason)}.</p>' if reason else ""
    return f"""<table>
<thead><tr><th>prediction</th><th>PSNR, dB</th><th>SSIM</th><th>LPIPS</th><th>alpha IoU</th></tr></thead>
<tbody>
{ours}
{others}
</tbody>
</table>
{note}"""


def _line(name: str, values: dict, css: str = "") -> str:
    reason = f' <span class="quiet">({escape(values["reason"])})</span>' if "reason" in values else ""
    cells = "".join(
        f"<td>{format_number(values.get(key), spec)}</td>"
        for key, spec in {"psnr": ".2f", "ssim": ".3f", "lpips": ".3f", "alpha_iou": ".3f"}.items()
    )
    return f'<tr class="{css}"><td>{escape(name)}{reason}</td>{cells}</tr>'


def _section(entry: ObjectPictures, rows: Sequence[ViewRow]) -> str:
    lpips = mean_of(rows, lambda row: row.lpips)
    lpips_span = "" if lpips is None else f"\n<span>LPIPS {lpips:.3f}</span>"
    by_view = {row.view_id: row for row in rows}
    views = [(view, by_view[view.view_id]) for view in entry.views]
    inputs = "".join(picture.html(f"input {i}") for i, picture in enumerate(entry.inputs))
    lines = [
        _views_line("", [_angles(row) for _, row in views], cell="th"),
        _views_line("target", [view.target.html("target") for view, _ in views]),
        _views_line("prediction", [view.prediction.html("prediction") for view, _ in views]),
        _views_line("PSNR, dB", [f"<b>{row.psnr:.2f}</b>" for _, row in views]),
        _views_line("alpha", [view.alpha.html("alpha") for view, _ in views]),
        _views_line("nearest input", [view.nearest_input.html("nearest input") for view, _ in views]),
        _views_line("its PSNR, dB", [f"{row.baselines['nearest_input']['psnr']:.2f}" for _, row in views]),
    ]
    table = "\n".join(lines)
    return f"""<section>
<header><h2>{escape(entry.uid)}</h2>
<span>PSNR <b>{fmean(row.psnr for row in rows):.2f}</b> dB</span>
<span>SSIM {fmean(row.ssim for row in rows):.3f}</span>{lpips_span}
<span>alpha IoU {fmean(row.alpha_iou for row in rows):.3f}</span>
<span class="quiet">mean of {len(rows)} views, {len(views)} shown</span></header>
<div class="inputs"><span>inputs</span>{inputs}{_video(entry.turntable)}</div>
<table class="views">
{table}
</table>
</section>"""


def _video(href: str | None) -> str:
    if href is None:
        return ""
    return f'<video src="{escape(quote(href))}" controls loop muted playsinline preload="metadata"></video>'


def _views_line(heading: str, cells: Sequence[str], cell: str = "td") -> str:
    return f"<tr><th>{heading}</th>" + "".join(f"<{cell}>{text}</{cell}>" for text in cells) + "</tr>"


def _angles(row: ViewRow) -> str:
    height = f"{abs(row.elevation_deg):.0f}° " + ("above" if row.elevation_deg >= 0 else "below")
    return f"view {row.view_id}<br>{height}, {row.azimuth_deg:.0f}° round"
