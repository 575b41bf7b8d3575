"""Training curves to compare with: of your run, and of those that made the weights that come along.

    python scripts/curves.py runs/mine --out curves                what your run does, beside the references
    python scripts/curves.py runs/mini runs/tiny --save mini tiny  record runs as references

A run is a folder with metrics.csv. --out gets one image, `curves.png`, and `<name>.csv` of each run: the
columns that are drawn, five digits, all other columns left out. The references are such files, of
`lgm/assets/curves`; the same objects and the same batch give the same curves but for noise, others do not.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lgm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCES = Path(lgm.__file__).parent / "assets" / "curves"

# What a panel shows, and the columns of metrics.csv in it.
PANELS: Mapping[str, Sequence[str]] = {
    "PSNR, training, dB": ["train/psnr"],
    "PSNR, held out, dB": ["val/psnr_ema", "val/psnr"],
    "SSIM, held out": ["eval/canonical4/ssim"],
    "alpha IoU, held out": ["eval/canonical4/alpha_iou"],
    "loss: colour": ["train/loss/rgb"],
    "loss: coverage": ["train/loss/alpha"],
    "loss: perceptual": ["train/loss/lpips", "train/loss/hed"],
    "gradient norm": ["train/grad_norm"],
    "mean coverage": ["train/alpha"],
    "mean opacity": ["train/opacity"],
    "mean scale": ["train/scale"],
}
LOGARITHMIC = ("loss", "gradient")
MANY = 40  # points; more are smoothed


@dataclass(frozen=True)
class Curves:
    """One run's columns: steps and values, where there is a value."""

    name: str
    columns: dict[str, list[tuple[int, float]]]

    @classmethod
    def read(cls, path: Path, name: str) -> Curves:
        """The plotted columns of a metrics.csv, with their steps."""
        columns: dict[str, list[tuple[int, float]]] = {}
        names = [column for group in PANELS.values() for column in group]
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for column in names:
                    if row.get(column):
                        columns.setdefault(column, []).append((int(row["step"]), float(row[column])))
        if not columns:
            raise ValueError(f"{path} has none of the columns {', '.join(names[:3])}, …")
        return cls(name, columns)

    def write(self, path: Path) -> None:
        """The same columns, one row a step."""
        rows: dict[int, dict[str, str]] = {}
        for column, points in self.columns.items():
            for step, value in points:
                rows.setdefault(step, {"step": str(step)})[column] = f"{value:.5g}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", *self.columns], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[step] for step in sorted(rows))

    def panel(self, columns: Sequence[str]) -> list[tuple[int, float]]:
        """The first of the columns that this run has."""
        # Columns of a panel are alternatives: EMA weights first, where there are any.
        return next((self.columns[column] for column in columns if column in self.columns), [])


def smoothed(values: Sequence[float], span: int = 9) -> list[float]:
    """Running means over `span` values, fewer at the ends: a step's own number is mostly its objects'."""
    half = span // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [math.fsum(window) / len(window) for window in windows]


def draw(runs: Sequence[Curves], references: Sequence[Curves], path: Path) -> None:
    """One panel a quantity; runs in colour, references in grey and told apart by their dashes."""
    from matplotlib.figure import Figure

    shown = {title: columns for title, columns in PANELS.items() if any(run.panel(columns) for run in runs)}
    num_rows = -(-len(shown) // 3)
    figure = Figure(figsize=(12, 2.6 * num_rows), dpi=100, layout="constrained")
    axes = figure.subplots(num_rows, 3, squeeze=False).flatten()
    for ax, (title, columns) in zip(axes, shown.items(), strict=False):
        for number, reference in enumerate(references):
            _line(ax, reference, columns, color="0.6", linestyle=("--", ":", "-.")[number % 3])
        for number, run in enumerate(runs):
            _line(ax, run, columns, color=f"C{number}")
        ax.set_title(title, fontsize=10)
        if title.startswith(LOGARITHMIC) and ax.dataLim.y0 > 0:  # decibels are logarithms already
            ax.set_yscale("log")
        ax.grid(alpha=0.2)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    axes[0].legend(fontsize=8)
    for ax in axes[max(0, len(shown) - 3) : len(shown)]:
        ax.set_xlabel("optimizer steps")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _line(ax: Axes, run: Curves, columns: Sequence[str], **style: str) -> None:
    points = run.panel(columns)
    if not points:
        return
    steps, values = zip(*points, strict=True)
    if len(values) > MANY:
        ax.plot(steps, values, alpha=0.2, linewidth=0.6, **style)
        ax.plot(steps, smoothed(values), label=run.name, **style)
    else:
        ax.plot(steps, values, label=run.name, marker=".", **style)


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders with metrics.csv")
    parser.add_argument("--out", type=Path, default=Path("curves"), help="where to write (curves)")
    parser.add_argument(
        "--save", nargs="+", metavar="NAME", help="record the runs as references of these names"
    )
    parser.add_argument("--no-references", action="store_true", help="draw the runs alone")
    options = parser.parse_args()
    try:
        names = options.save or [run.name for run in options.runs]
        if len(names) != len(options.runs):
            raise ValueError(f"--save names {len(names)} of {len(options.runs)} runs")
        runs = [Curves.read(run / "metrics.csv", name) for run, name in zip(options.runs, names, strict=True)]
        known = [] if options.no_references or options.save else sorted(REFERENCES.glob("*.csv"))
        draw(
            runs,
            [Curves.read(path, f"{path.stem} (reference)") for path in known],
            options.out / "curves.png",
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: {error}; pip install 'lgm-training[plots]'", file=sys.stderr)
        return 1
    for run in runs:
        run.write((REFERENCES if options.save else options.out) / f"{run.name}.csv")
    print(options.out / "curves.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
