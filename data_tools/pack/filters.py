"""Filters of objects that are not worth training on, one small function per reason.

A threshold of 0 (1 for --max-white) switches its filter off; all are off unless asked for. Measured from
images, so that they hold for renders of any engine; `thickness_of_points` says of a mesh, before it is
drawn, what `thickness_of_silhouettes` says of its images.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from lgm.data.sources.filters import Filters, value_of
from lgm.files import read_text

# sRGB: a surface without its texture, lit from in front, lies above this in all three channels.
_WHITE_FROM = 235
_VISIBLE_ALPHA = 128
# A silhouette of fewer pixels has no shape to speak of.
_FEWEST_PIXELS = 8


class FilteredOut(Exception):
    """The object is left out on purpose; the message is the reason."""


@dataclass(frozen=True)
class FilterOptions:
    """min_coverage: mean alpha over the views. min_input_coverage: of the canonical view that shows most, or
    of all views where a set has no canonical ones. max_white: share of the visible pixels that are white.
    min_thickness: thinnest extent over the middle one (a sheet has 0, a stick or a ball 1).
    excluded_words: in lower case; none of them may stand in the caption. rules: of fields and labels."""

    min_coverage: float = 0.0
    min_input_coverage: float = 0.0
    max_white: float = 1.0
    min_thickness: float = 0.0
    excluded_words: tuple[str, ...] = ()
    rules: Filters = field(default_factory=Filters)

    def settings(self) -> dict[str, Any]:
        """All that decides on which objects are packed, as plain values."""
        labels = None if self.rules.labels is None else self.rules.labels.digest
        images = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rules"}
        return {**images, "rules": self.rules.rules, "labels": labels}

    def asks_for(self, number: int, canonical: Sequence[int]) -> bool:
        """Whether a view must be measured. canonical: numbers of those views."""
        if self.min_coverage > 0 or self.max_white < 1 or self.min_thickness > 0:
            return True
        return self.min_input_coverage > 0 and (number in canonical or not canonical)


@dataclass(frozen=True)
class ImageMeasures:
    """coverage: mean alpha. visible, white: numbers of pixels. width: of the silhouette at its narrowest,
    in pixels. What no filter asks for is 0."""

    coverage: float
    visible: int
    white: int
    width: float


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the filters' options to a parser."""
    group = parser.add_argument_group(
        "filters (off unless given); each object left out has its reason in the report"
    )
    add = group.add_argument
    add("--min-coverage", type=float, default=0.0,
        help="leave out (nearly) empty objects: mean alpha over the views below this, e.g. 0.01")  # fmt: skip
    add("--min-input-coverage", type=float, default=0.0,
        help="leave out what the canonical views hardly see (a sheet on the ground): the largest mean alpha "
        "among them below this, e.g. 0.001")  # fmt: skip
    add("--max-white", type=float, default=1.0,
        help="leave out mostly white objects (lost textures): share of pixels, e.g. 0.95")  # fmt: skip
    add("--min-thickness", type=float, default=0.0,
        help="leave out flat objects: thinnest extent over the middle one below this, e.g. 0.02")  # fmt: skip
    add("--exclude-words", type=Path, metavar="FILE",
        help="leave out objects whose caption has one of these words or phrases, one a line")  # fmt: skip
    add("--filter", action="append", default=[], metavar="RULE",
        help="keep objects of which a field is one of these (score=2,3) or is none of them (is_scene!=true); "
        "patterns with * and ?; may be given several times")  # fmt: skip
    add("--labels", type=Path, metavar="FILE",
        help="a table with further fields by uid, e.g. of Objaverse++ (.csv, .tsv, .json, .jsonl, .parquet), "
        "packed with each object; without a row a field is `unknown`: = leaves out, != keeps")  # fmt: skip


def filter_options(options: argparse.Namespace) -> FilterOptions:
    """Raises ValueError and FileNotFoundError naming the option."""
    for name in ("min_coverage", "min_input_coverage", "max_white", "min_thickness"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise ValueError(f"--{name.replace('_', '-')} {value} must lie between 0 and 1")
    words = read_words(options.exclude_words) if options.exclude_words else ()
    return FilterOptions(
        options.min_coverage,
        options.min_input_coverage,
        options.max_white,
        options.min_thickness,
        words,
        read_rules(options.filter, options.labels),
    )


def read_rules(texts: Sequence[str], labels: Path | None = None) -> Filters:
    """`score=2,3` and `is_scene!=true` as `data.filters` has them: allow and deny lists by field."""
    rules: dict[str, dict[str, list[str]]] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        kind = "deny" if name.endswith("!") else "allow"
        name = name.removesuffix("!").strip()
        patterns = [value.strip() for value in values.split(",") if value.strip()]
        if not (name and separator and patterns):
            raise ValueError(
                f"--filter {text!r} must be <field>=<values> or <field>!=<values>, e.g. score=2,3"
            )
        rules.setdefault(name, {}).setdefault(kind, []).extend(patterns)
    return Filters(rules, labels)


def labels_summary(rules: Filters, uids: Collection[str]) -> str:
    """How many of the objects have a row among the labels, and what becomes of the others; empty without
    labels."""
    if rules.labels is None:
        return ""
    known = sum(bool(rules.labels.of(uid)) for uid in uids)
    return (
        f"{known} of {len(uids)} objects have a row in {rules.labels.path}; "
        "without one a label is `unknown`: --filter name=… leaves the object out, name!=… keeps it"
    )


def rule_fault(metadata: Mapping[str, Any], rules: Filters) -> str | None:
    """Why an object is left out by a field or a label, or None. metadata: with its labels."""
    name = rules.refused(metadata)
    return None if name is None else f"its {name} is {value_of(metadata, name)!r}, which --filter leaves out"


def read_words(path: Path) -> tuple[str, ...]:
    """Words and phrases, one a line, in lower case; # starts a comment."""
    if not path.is_file():
        raise FileNotFoundError(f"--exclude-words {path} does not exist")
    lines = (line.partition("#")[0].strip().lower() for line in read_text(path).splitlines())
    words = tuple(dict.fromkeys(" ".join(line.split()) for line in lines if line))
    if not words:
        raise ValueError(f"--exclude-words {path} holds no word; give one a line")
    return words


def caption_fault(metadata: dict[str, Any], words: Sequence[str]) -> str | None:
    """Whole words only: `wall` leaves out `a brick wall` and keeps `a wallet`."""
    caption = " ".join(str(metadata.get("caption") or "").lower().split())
    for word in words:
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", caption):
            return f"its caption has {word!r}"
    return None


def measure_image(pixels: np.ndarray, options: FilterOptions) -> ImageMeasures:
    """pixels: [H, W, 4] uint8, straight alpha."""
    alpha = pixels[..., 3]
    num_visible, num_white, width = 0, 0, 0.0
    visible = alpha >= _VISIBLE_ALPHA
    if options.max_white < 1:
        white = visible
        for channel in range(3):  # a minimum over three neighbours takes ten times as long
            white = white & (pixels[..., channel] >= _WHITE_FROM)
        num_visible, num_white = int(visible.sum()), int(white.sum())
    if options.min_thickness > 0:
        rows, columns = np.nonzero(visible)
        if len(rows) >= _FEWEST_PIXELS:
            # Between the outer pixels' centres, plus one pixel.
            width = float(_extents(np.stack([columns, rows], axis=1).astype(np.float64))[0]) + 1.0
    return ImageMeasures(float(alpha.mean()) / 255, num_visible, num_white, width)


def image_fault(
    measures: Mapping[int, ImageMeasures], options: FilterOptions, canonical: Sequence[int] = ()
) -> str | None:
    """The reason to leave an object out, from the measures of the views that `options` asks for, by number.
    canonical: numbers of those views."""
    if not measures:
        return None
    every = list(measures.values())
    inputs = [measures[number] for number in canonical] or every
    return (
        coverage_fault(every, options.min_coverage)
        or input_fault(inputs, options.min_input_coverage)
        or white_fault(every, options.max_white)
        or flatness_fault(thickness_of_silhouettes(every), options.min_thickness)
    )


def coverage_fault(measures: Sequence[ImageMeasures], min_coverage: float) -> str | None:
    """Why an object is left out as nearly empty, or None."""
    coverage = float(np.mean([measure.coverage for measure in measures]))
    if coverage < min_coverage:
        return f"nearly empty: mean alpha {coverage:.4f} is below --min-coverage {min_coverage:g}"
    return None


def input_fault(inputs: Sequence[ImageMeasures], min_input_coverage: float) -> str | None:
    """Why an object is left out as hardly visible in the canonical views, or None."""
    coverage = max(measure.coverage for measure in inputs)
    if coverage < min_input_coverage:
        return (
            f"hardly seen in the canonical views: mean alpha {coverage:.4f} at most, below "
            f"--min-input-coverage {min_input_coverage:g}"
        )
    return None


def white_fault(measures: Sequence[ImageMeasures], max_white: float) -> str | None:
    """Why an object is left out as mostly white, or None."""
    visible = sum(measure.visible for measure in measures)
    white = sum(measure.white for measure in measures) / max(visible, 1)
    if white > max_white:
        return f"mostly white: {white:.3f} of what is visible, more than --max-white {max_white:g}"
    return None


def flatness_fault(thickness: float, min_thickness: float) -> str | None:
    """Why an object is left out as flat, or None."""
    if thickness < min_thickness:
        return f"flat: thickness {thickness:.4f} is below --min-thickness {min_thickness:g}"
    return None


def thickness_of_points(points: np.ndarray) -> float:
    """Thinnest extent over the middle one, along the principal axes of points [N, 3]; 0 for a sheet,
    however it is turned."""
    extents = _extents(points.reshape(-1, 3))
    return float(extents[0] / max(extents[1], 1e-300))


def thickness_of_silhouettes(measures: Sequence[ImageMeasures]) -> float:
    """The same from images: a silhouette's narrowest width in the view that sees the object edge-on, over
    that in the view that sees it broadest. It takes views from many sides; a sheet in four level ones of
    which none is edge-on goes unseen."""
    widths = [measure.width for measure in measures if measure.width > 0]
    return min(widths) / max(widths) if widths else 0.0


def _extents(points: np.ndarray) -> np.ndarray:
    """Extents of points [N, D] along their principal axes, the smallest first.

    Of a solid with equal axes these are arbitrary, but then its extents are much alike anyway.
    """
    centered = points - points.mean(axis=0)
    scale = max(float(np.abs(centered).max()), 1e-300)
    centered = centered / scale  # lengths of 1e-200 must not vanish when squared
    # Principal component analysis: axes of the covariance.
    _, axes = np.linalg.eigh(centered.T @ centered)
    return np.sort(np.ptp(centered @ axes, axis=0)) * scale
