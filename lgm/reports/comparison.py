"""Several checkpoints side by side: `scripts/compare.py`, and what a sweep of evaluate.py ends with."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lgm.errors import reading, shown
from lgm.files import write_text
from lgm.masking import masked
from lgm.metrics import Protocol
from lgm.metrics.comparison import Comparison, Evaluation, check_same_images, compare
from lgm.metrics.summary import METRICS
from lgm.metrics.table import read_view_csv
from lgm.models.plain_data import changes, fits, parsed, plain, unlike
from lgm.reports.comparison_page import comparison_page

PAGE_NAME, VALUES_NAME = "comparison.html", "comparison.json"
_MOST_RESAMPLES = 100_000  # each takes a pass over all objects
_NEEDED = ("psnr", "num_objects", "num_views", "protocol", "protocol_hash", "protocol_content", "confidence")


class CompareSweep(Callback):
    """After `evaluate.py -m ckpt=a,b,c`: one table and one page of all its jobs, in the sweep's folder."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._started = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        # Not what an earlier sweep left in the same folder.
        paths = [path for path in folder.glob("*/metrics.json") if path.stat().st_mtime >= self._started]
        # A job that failed has no metrics.json.
        jobs = [path.parent for path in paths]
        if len(jobs) < 2:
            return
        try:
            comparison = compare_folders(sorted(jobs, key=_job_number))
        except (ValueError, OSError) as error:  # Hydra would make a traceback of it
            sys.stderr.write(f"not compared: {masked(error)}\n")
            return
        sys.stdout.write(f"{comparison_text(comparison)}\n{write_comparison(comparison, folder)}\n")


def compare_folders(folders: Sequence[Path]) -> Comparison:
    """Read and compare runs of evaluate.py, the others with the first.

    Raises FileNotFoundError for a folder that is none, ValueError where protocols or images differ.
    """
    if len(folders) < 2:
        raise ValueError(f"a comparison needs two runs of evaluate.py at least, got {len(folders)}")
    evaluations = _labelled([read_evaluation(folder) for folder in folders])
    first = evaluations[0]
    for other in evaluations[1:]:
        # Numbers of two protocols differ by more than networks do: they never stand in one table.
        if other.summary["protocol_hash"] != first.summary["protocol_hash"]:
            then, now = (e.summary["protocol_content"] for e in (first, other))
            detail = ", ".join(list(changes(then, now, "protocol"))[:3]) or "another version of the metrics"
            raise ValueError(
                f"{first.label} was measured by protocol {first.protocol}, {other.label} by {other.protocol} "
                f"({detail}): their numbers do not compare; evaluate both by one protocol"
            )
    check_same_images(evaluations)
    with reading(first.folder, "evaluate again with this version"):
        return compare(evaluations)


def read_evaluation(folder: Path) -> Evaluation:
    """The metrics.json and per_view.csv of a run of evaluate.py.

    Raises FileNotFoundError or ValueError in one line where they are missing, damaged or hold no numbers.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no metrics.json; give folders of runs of evaluate.py")
    with reading(path, "evaluate again with this version"):
        summary = plain(parsed(path.read_text(encoding="utf-8"), str(path)), built=("protocol_content",))
        _check_summary(summary, path)
    if summary["num_views"] == 0:
        reason = shown(summary.get("psnr_reason"))
        raise ValueError(f"{folder}: nothing was measured ({reason}), so there is nothing to compare")
    views = folder / "per_view.csv"
    with reading(views, "evaluate again with this version"):
        table = read_view_csv(views)
        for name in ("psnr", "white_psnr"):
            if name not in table.columns:
                raise ValueError(f"it has no {name}")
        if any(np.isinf(column).any() for column in table.columns.values()):
            raise ValueError("it holds numbers that are infinite")
    return Evaluation(_checkpoint(folder), folder, summary, table)


def _check_summary(summary: Any, path: Path) -> None:
    """Raise ValueError where an evaluation's numbers are not of their types: they may be a stranger's."""
    if not isinstance(summary, dict):
        raise ValueError(f"it holds {type(summary).__name__}, not named values")
    missing = [key for key in _NEEDED if key not in summary]
    if missing:
        raise ValueError(f"{path} has no {missing[0]}; evaluate again with this version")
    numbers = dict.fromkeys(METRICS, float | None)
    for key, hint in {
        **numbers,
        "protocol": str,
        "protocol_hash": str,
        "num_objects": int,
        "num_views": int,
    }.items():
        if not fits(summary.get(key), hint):
            raise unlike(key, summary[key], f"of type {hint}")
    if Protocol(summary["protocol_content"]).metrics.bootstrap.resamples > _MOST_RESAMPLES:
        raise ValueError(f"protocol.metrics.bootstrap.resamples is beyond {_MOST_RESAMPLES}")


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write `comparison.json` and `comparison.html`; return the page's path."""
    text = json.dumps(as_values(comparison), indent=2, allow_nan=False)
    write_text(folder / VALUES_NAME, text + "\n")
    path = folder / PAGE_NAME
    write_text(path, comparison_page(comparison, folder))
    return path


def as_values(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values, for JSON."""
    first = comparison.evaluations[0]
    return {
        "protocol": first.summary["protocol"],
        "protocol_hash": first.summary["protocol_hash"],
        "num_objects": first.summary["num_objects"],
        "num_views": first.summary["num_views"],
        "evaluations": [
            {
                "label": evaluation.label,
                **{key: evaluation.summary[key] for key in _metrics(comparison)},
                "less_the_first": None
                if index == 0
                else {name: vars(value) for name, value in comparison.differences[index - 1].items()},
            }
            for index, evaluation in enumerate(comparison.evaluations)
        ],
    }


def comparison_text(comparison: Comparison) -> str:
    """A small table for a terminal."""
    first, names = comparison.evaluations[0], _metrics(comparison)
    width = max(len(evaluation.label) for evaluation in comparison.evaluations) + 2
    lines = [
        f"protocol {first.protocol}: {first.summary['num_objects']} objects, "
        f"{first.summary['num_views']} images",
        " " * width + "".join(f"{name:>12}" for name in names) + "   PSNR less the first's",
    ]
    for index, evaluation in enumerate(comparison.evaluations):
        cells = "".join(f"{_number(evaluation.summary[name]):>12}" for name in names)
        difference = ""
        if index:
            gain = comparison.differences[index - 1]["psnr"]
            interval = "" if gain.interval is None else " ({:+.3f} to {:+.3f})".format(*gain.interval)
            difference = (
                f"   {gain.mean:+.3f}{interval}, better on {gain.num_better} of {gain.num_objects} objects"
            )
        lines.append(f"{evaluation.label:<{width}}{cells}{difference}")
    return "\n".join(lines)


def _metrics(comparison: Comparison) -> list[str]:
    measured = [e.summary for e in comparison.evaluations]
    return [n for n in METRICS if n == "psnr" or any(summary.get(n) is not None for summary in measured)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _checkpoint(folder: Path) -> str:
    config = folder / "config.yaml"
    if not config.is_file():
        return str(folder)
    with reading(config, "evaluate again"):
        # Not by OmegaConf, which would resolve ${oc.env:…} in a stranger's file.
        ckpt = dict(yaml.safe_load(config.read_text(encoding="utf-8"))).get("ckpt")
        return shown(ckpt) if isinstance(ckpt, str) else str(folder)


def _labelled(evaluations: list[Evaluation]) -> list[Evaluation]:
    """Names of checkpoints without what all have in common; folders where two are of one checkpoint."""
    names = [evaluation.label for evaluation in evaluations]
    if len(set(names)) < len(names):
        names = [str(evaluation.folder) for evaluation in evaluations]
    parts = [Path(name).parts for name in names]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return [
        Evaluation(str(Path(*part[shared:])), e.folder, e.summary, e.table)
        for part, e in zip(parts, evaluations, strict=True)
    ]


def _job_number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdigit() else sys.maxsize, folder.name)
