"""The table that a sweep ends with: a row per trial, the best first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lgm.files import write_text

CSV_NAME = "sweep.csv"
SURPLUS = "surplus"  # a trial beyond the number that was asked for: it has no row
_SHOWN = 20
# Without a value: what may still get one comes before what never will.
_ORDER = ("complete", "pruned", "running", "waiting", "failed", "killed")


@dataclass(frozen=True)
class Row:
    """number: of the trial, and of its folder. status: complete, pruned, failed, killed, running, waiting.
    value: of the metric; None without one. params: by key. step: optimizer steps. seconds: of its process."""

    number: int
    status: str
    value: float | None
    params: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    seconds: float | None = None
    error: str = ""


def outcome_of(trial: Any) -> str:
    """The status of a trial of Optuna's: without a word of its sweep, one that has failed was killed."""
    if trial.state.name in ("RUNNING", "WAITING"):
        return trial.state.name.lower()
    return str(trial.user_attrs.get("outcome", "killed"))


def row_of(trial: Any) -> Row:
    """The row of a trial of Optuna's."""
    value = trial.value if trial.state.name in ("COMPLETE", "PRUNED") else None
    steps = trial.user_attrs.get("step") or trial.last_step or 0
    return Row(
        number=int(trial.user_attrs.get("root", trial.number)),
        status=outcome_of(trial),
        value=value,
        params=dict(trial.params),
        step=int(steps),
        seconds=trial.user_attrs.get("seconds"),
        error=str(trial.user_attrs.get("error", "")),
    )


def ranked(rows: Sequence[Row], direction: str) -> list[Row]:
    """Complete trials by value, the best first; then pruned ones by value, then those without one.

    A pruned trial's value is that of an earlier step: it does not compare with those of complete ones.
    """
    sign = -1.0 if direction == "maximize" else 1.0

    def key(row: Row) -> tuple[int, bool, float, int]:
        order = _ORDER.index(row.status) if row.status in _ORDER else len(_ORDER)
        # Sorted ascending: a metric to maximise is turned round.
        return order, row.value is None, sign * (row.value or 0.0), row.number

    return sorted(rows, key=key)


def write_csv(rows: Sequence[Row], path: Path, metric: str) -> None:
    """rows: in the order that they are to have."""
    names = _parameters(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "status", metric, *names, "step", "seconds", "error"])
    for row in rows:
        values = [row.params.get(name, "") for name in names]
        seconds = "" if row.seconds is None else row.seconds
        value = "" if row.value is None else repr(row.value)
        writer.writerow([row.number, row.status, value, *values, row.step, seconds, row.error])
    write_text(path, text.getvalue())


def table_text(rows: Sequence[Row], metric: str) -> str:
    """For a terminal: the first rows, parameters by the shortest names that tell them apart."""
    names = _parameters(rows)
    header = ["trial", "status", metric, *short_names(names), "step"]
    lines = [header]
    for row in rows[:_SHOWN]:
        value = "–" if row.value is None else f"{row.value:.4f}"
        lines.append(
            [str(row.number), row.status, value, *(_cell(row.params.get(n)) for n in names), str(row.step)]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = "\n".join(
        "  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in lines
    )
    left = len(rows) - _SHOWN
    return text + (f"\n… and {left} more in {CSV_NAME}" if left > 0 else "")


def short_names(keys: Sequence[str]) -> list[str]:
    """`optimizer.lr` as `lr`, where no other key ends like it."""
    ends = [key.rsplit(".", 1)[-1] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def _parameters(rows: Sequence[Row]) -> list[str]:
    return list(
        dict.fromkeys(name for row in sorted(rows, key=lambda row: row.number) for name in row.params)
    )


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
