"""One HTML page about a data set, with nothing outside itself."""

from __future__ import annotations

import base64
from html import escape

from data_tools.stats.contact_sheet import as_webp
from data_tools.stats.tally import EXTREMES, Case, Histogram, Tally
from lgm.errors import shown

_BINS = 50  # divides the 1000 of a histogram
_WIDTH, _HEIGHT = 500, 120
_MOST_VALUES = 20  # of a field; the rest as a number
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem;
  color: #222; background: #fff }
h2 { margin-top: 2.2rem; font-size: 1.15rem }
table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.row { display: flex; flex-wrap: wrap; gap: 1.2rem }
figure { margin: 0 } figcaption { font-size: .8rem; color: #555; overflow-wrap: anywhere }
figure img { display: block; border: 1px solid #e4e4e4; max-width: 100% }
svg { max-width: 100%; height: auto }
"""


def page(title: str, facts: dict[str, str], tally: Tally, strips: list) -> str:
    """facts: lines at the top. strips: (uid, image) of the contact sheet."""
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(shown(title))}</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{_STYLE}</style></head><body><h1>{escape(shown(title))}</h1>",
        _table([(name, value, False) for name, value in facts.items()]),
        "<h2>Histograms</h2><div class='row'>",
        *(_figure(name, histogram) for name, histogram in tally.histograms.items()),
        "</div>",
    ]
    for name, counter in tally.fields.items():
        most = [(value, str(number), True) for value, number in counter.most_common(_MOST_VALUES)]
        rest = len(counter) - len(most)
        parts += [f"<h2>{escape(name)}</h2>", _table(most), f"<p>and {rest} more</p>" if rest > 0 else ""]
    for name, cases in tally.cases.items():
        if cases:
            parts.append(f"<h2>The {escape(name)}</h2><div class='row'>")
            # A tally keeps them as a heap, in no order to be shown.
            parts += [_case(name, case) for case in sorted(cases, reverse=True)]
            parts.append("</div>")
    parts.append("<h2>Contact sheet</h2><div class='row'>")
    parts += [_thumbnail(as_webp(image), escape(shown(uid))) for uid, image in strips]
    parts.append("</div></body></html>\n")
    return "\n".join(parts)


def _table(rows: list[tuple[str, str, bool]]) -> str:
    cells = (
        f"<tr><td>{escape(shown(name))}</td>"
        f"<td{' class=number' if is_number else ''}>{escape(shown(value, 1000))}</td></tr>"
        for name, value, is_number in rows
    )
    return f"<table>{''.join(cells)}</table>"


def _case(name: str, case: Case) -> str:
    text = EXTREMES[name].format(abs(case.score))
    return _thumbnail(case.thumbnail, f"{escape(shown(case.uid))}<br>{escape(text)}")


def _thumbnail(content: bytes, caption: str) -> str:
    source = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
    return f"<figure><img src='{source}' alt='' loading='lazy'><figcaption>{caption}</figcaption></figure>"


def _figure(name: str, histogram: Histogram) -> str:
    """Bars from the least to the largest possible value; the highest bar says its share."""
    counts = histogram.rebinned(_BINS)
    highest = max(int(counts.max()), 1)
    width = _WIDTH / _BINS
    bars = "".join(
        f"<rect x='{i * width:.1f}' y='{_HEIGHT - _HEIGHT * count / highest:.2f}' "
        f"width='{width - 1:.1f}' height='{_HEIGHT * count / highest:.2f}'/>"  # a gap between bars
        for i, count in enumerate(counts)
        if count
    )
    ticks = "".join(
        f"<text x='{part * _WIDTH:.0f}' y='{_HEIGHT + 14}' text-anchor='{anchor}'>"
        f"{histogram.low + part * (histogram.high - histogram.low):g}</text>"
        for part, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    )
    text = (
        f"{name}: mean {histogram.mean:.3f}, 5% {histogram.percentile(5):.3f}, median "
        f"{histogram.percentile(50):.3f}, 95% {histogram.percentile(95):.3f}; highest bar "
        f"{highest / max(histogram.number, 1):.1%} of {histogram.number}"
    )
    return (
        f"<figure><svg viewBox='0 0 {_WIDTH} {_HEIGHT + 18}' width='{_WIDTH}' role='img' "
        f"aria-label='{escape(text)}'><g fill='#3a6ea5'>{bars}</g>"
        f"<line x1='0' x2='{_WIDTH}' y1='{_HEIGHT}' y2='{_HEIGHT}' stroke='#888'/>"
        f"<g font-size='11' fill='#555'>{ticks}</g></svg><figcaption>{escape(text)}</figcaption></figure>"
    )
