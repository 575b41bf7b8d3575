"""Tables and images for a model card: what evaluations measured, and what that looks like.

    python scripts/model_card.py runs/mini/evaluation --out card
    python scripts/model_card.py runs/mini/elsewhere --out card --count 0      one sheet of all objects

The folder is that of a run of evaluate.py. Writes `worst.webp` and `best.webp`, --count objects each
(all.webp of all with --count 0): an object's inputs, targets above, predictions below. Prints the numbers as
Markdown, with their protocol and its hash. Only objects whose images the evaluation wrote can be shown:
`callbacks.report.max_objects` at least their number.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lgm.callbacks.evaluation.objects import object_dir
from lgm.errors import reading
from lgm.errors import shown as printable
from lgm.metrics.table import plain_text
from lgm.models.plain_data import parsed, plain
from lgm.reports.images import TEXT, resized

COLUMNS = {"psnr": ("PSNR, dB", ".2f"), "ssim": ("SSIM", ".3f"), "alpha_iou": ("alpha IoU", ".3f")}
BANDS = {
    "level": "within {limit:g}° of the horizon",
    "above": "more than {limit:g}° above",
    "below": "more than {limit:g}° below",
}
BASELINES = {"untrained": "untrained", "white": "all white", "nearest_input": "nearest input, copied"}
THUMBNAIL = 72  # pixels
QUALITY = 60  # of the WebP: thumbnails for a page, not for measuring


@dataclass(frozen=True)
class Shown:
    """One object's images and the caption below its inputs."""

    caption: str
    inputs: Sequence[Path]
    targets: Sequence[Path]
    predictions: Sequence[Path]

    @classmethod
    def of(cls, folder: Path, row: Mapping[str, str]) -> Shown | None:
        """None where the evaluation wrote no images of it."""
        images = object_dir(folder, row["uid"])
        targets = sorted(images.glob("view_*_target.png"))
        if not targets:
            return None
        parts = [f"PSNR {float(row['psnr']):.1f} dB"]
        if row.get("alpha_iou"):
            parts.append(f"alpha IoU {float(row['alpha_iou']):.2f}")
        return cls(
            caption=f"{printable(row['uid'], 60)}\n{', '.join(parts)}",
            inputs=sorted(images.glob("input_*.png")),
            targets=targets,
            predictions=[path.with_name(path.name.replace("target", "prediction")) for path in targets],
        )


def sheet(objects: Sequence[Shown], gap: int = 6) -> Image.Image:
    """Two lines an object: inputs and targets, a caption and predictions."""
    num_inputs = max(len(shown.inputs) for shown in objects)
    num_views = max(len(shown.targets) for shown in objects)
    cell = THUMBNAIL + 1
    width, height = (num_inputs + num_views) * cell + 3 * gap, 2 * cell + 2 * gap
    drawn = Image.new("RGB", (width, len(objects) * height), "white")
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(10)
    for number, shown in enumerate(objects):
        top = number * height + gap
        left = gap + num_inputs * cell + gap
        _paste(drawn, shown.inputs, gap, top)
        _paste(drawn, shown.targets, left, top)
        _paste(drawn, shown.predictions, left, top + cell)
        draw.multiline_text((gap, top + cell + 8), shown.caption, fill=TEXT, font=font, spacing=4)
        draw.line([(0, top + 2 * cell + gap // 2), (width, top + 2 * cell + gap // 2)], fill="#e2e4e8")
    return drawn


def _paste(drawn: Image.Image, paths: Sequence[Path], left: int, top: int) -> None:
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            drawn.paste(resized(image.convert("RGB"), THUMBNAIL), (left + number * (THUMBNAIL + 1), top))


def table(summary: Mapping[str, Any]) -> str:
    """The numbers as Markdown: overall with intervals, by bands of elevation, and what needs no training."""
    columns = {name: column for name, column in COLUMNS.items() if summary.get(name) is not None}
    metrics = summary["protocol_content"].get("metrics", {})
    limit = metrics.get("level_elevation_deg", 30)
    lines = [
        f"`{printable(summary['protocol'])}` ({printable(summary['protocol_hash'])}), "
        f"{summary['num_objects']} objects, "
        f"{summary['num_views']} images of {summary['protocol_content']['target_size']}²; in brackets "
        f"{summary['confidence']['level']:.0%} intervals over objects:",
        "",
        "| | " + " | ".join(heading for heading, _ in columns.values()) + " |",
        "|---|" + "---|" * len(columns),
        _line("all views", summary, columns, summary["confidence"]),
    ]
    for name, values in summary["bands"].items():
        confidence = {"psnr": values.get("psnr_confidence")}
        lines.append(_line(BANDS[name].format(limit=limit), values, columns, confidence))
    for name, values in summary["baselines"].items():
        text = BASELINES[name]
        if 0 < values["num_objects"] < summary["num_objects"]:
            text += f" ({values['num_objects']} objects)"
        lines.append(_line(text, values, columns, {}))
    return "\n".join(lines)


def _line(name: str, values: Mapping, columns: Mapping, confidence: Mapping) -> str:
    cells = []
    for key, (_, spec) in columns.items():
        cell = "–" if values.get(key) is None else format(values[key], spec)
        if confidence.get(key) is not None:
            low, high = (format(value, spec) for value in confidence[key])
            cell += f" ({low} to {high})"
        cells.append(cell)
    return f"| {name} | " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of a run of evaluate.py")
    parser.add_argument("--out", type=Path, default=Path("card"), help="where images go (card)")
    parser.add_argument("--count", type=int, default=10, help="objects on a sheet (10); 0 is all on one")
    options = parser.parse_args(arguments)
    try:
        with reading(options.folder, "give the folder of a run of evaluate.py"):
            write(options.folder, options.out, options.count)
    except (ValueError, OSError) as error:
        print(f"error: {options.folder} holds no whole evaluation: {error}", file=sys.stderr)
        return 2
    return 0


def write(folder: Path, out: Path, count: int) -> None:
    """Print the table and write the sheets; raises FileNotFoundError and ValueError."""
    text = (folder / "metrics.json").read_text("utf-8")
    summary = plain(parsed(text, "metrics.json"), built=("protocol_content",))
    with (folder / "per_object.csv").open(newline="", encoding="utf-8") as file:
        # Objects without a PSNR could not be measured.
        lines = [{**row, "uid": plain_text(row["uid"])} for row in csv.DictReader(file) if row["psnr"]]
    rows = sorted(lines, key=lambda row: float(row["psnr"]))
    chosen = {"worst": rows[:count], "best": rows[-count:][::-1]} if count else {"all": rows}
    out.mkdir(parents=True, exist_ok=True)
    for name, some in chosen.items():
        shown = [Shown.of(folder, row) for row in some]
        missing = [row["uid"] for row, entry in zip(some, shown, strict=True) if entry is None]
        if missing:
            raise ValueError(
                f"no images of {printable(', '.join(missing))}; evaluate with "
                f"callbacks.report.max_objects={len(rows)}"
            )
        sheet(shown).save(out / f"{name}.webp", quality=QUALITY, method=6)
    print(table(summary))


if __name__ == "__main__":
    sys.exit(main())
