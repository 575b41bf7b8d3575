"""metrics.csv: one row per logged step, kept over resumes."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from lgm.errors import first_line, shown
from lgm.files import atomic, set_aside

log = logging.getLogger(__name__)


class CSVLog(Logger):
    """Appends to `<folder>/metrics.csv`.

    Lightning's own CSVLogger deletes the file that it finds, which costs a resumed run its curves.
    This one keeps them, and drops only what lies after the step that it goes on from, or is done again.
    """

    is_record = True  # what resumes, reports and sweeps read: a run without it ends

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] = []
        self._row: dict[str, Any] = {}
        self._row_start = 0
        self._opened = False

    @property
    def name(self) -> str:
        """ "csv", as Lightning asks."""
        return "csv"

    @property
    def version(self) -> str:
        """Empty: a run has one file."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> CSVLog:
        """The logger itself, on rank 0."""
        return self

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's configuration lies beside the file, in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of `step`, rewriting the file only where a column is new."""
        step = step or 0
        if not self._opened:
            self._open(step, metrics)
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        if self._row.get("step") == step:
            # Several callers log one step: its row, the last of the file, is written again, so
            # that a kill finds all rows on the disk, or all but this one.
            os.truncate(self.path, self._row_start)
            self._row.update(values)
        else:
            self._row = {"step": step, **values}
        if not set(self._row) <= set(self._columns):
            rows = self._rows()
            self._columns = ["step", *sorted({*self._columns, *self._row} - {"step"})]
            self._rewrite(rows)
        self._row_start = self.path.stat().st_size
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(self._row)

    def _open(self, first_step: int, metrics: dict[str, float]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._rows_before(first_step)
        rows = [row for row in kept if _step(row) <= first_step]
        if rows and _step(rows[-1]) == first_step:
            row = rows.pop()
            # What comes is another part of that row (the validation after a stopped run's last step), or
            # the step was done again.
            if not any(row.get(name) for name in metrics if name != "epoch"):
                self._row = {**row, "step": first_step}
        self._columns = list(kept[0]) if rows or self._row else []
        if self._columns:
            self._rewrite(rows)
            self._row_start = self.path.stat().st_size
        else:
            self.path.unlink(missing_ok=True)
        self._opened = True

    def _rows_before(self, first_step: int) -> list[dict[str, str]]:
        """Rows of an earlier run. A damaged file is set aside, and the rows before the damage are
        kept: the run goes on either way."""
        rows: list[dict[str, str]] = []
        fault = None
        try:
            for row in self._read():
                if not _is_row(row):
                    fault = f"row {len(rows) + 1} is not a step and its numbers"
                    break
                rows.append(row)
            if fault and self._is_cut_off(len(rows)):
                fault = None
        except (ValueError, csv.Error, OSError) as error:
            fault = first_line(error)
        if fault:
            aside = set_aside(self.path)
            log.warning(
                "%s is damaged (%s): set aside as %s; step %d goes on after the %d rows before it",
                self.path,
                fault,
                aside.name,
                first_step,
                len(rows),
            )
        return rows

    def _is_cut_off(self, number: int) -> bool:
        """Whether the row after `number` good ones is the last line, as a kill leaves one."""
        with self.path.open("rb") as file:
            return sum(1 for _ in file) <= number + 2  # with the header

    def _read(self) -> Iterator[dict[str, str]]:
        if not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            if "step" not in names or len(set(names)) < len(names):
                raise ValueError(f"its columns are {shown(names, 60)}, without one step")
            yield from reader

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with atomic(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


def _is_row(row: dict[str, str]) -> bool:
    """Whether a row has all of its columns and no more, each a number or empty."""
    try:
        return (
            None not in row
            and all(value == "" or isinstance(float(value), float) for value in row.values())
            and int(row["step"]) >= 0
        )
    except (TypeError, ValueError):
        return False


def _step(row: dict[str, str]) -> float:
    """A row's step; a row cut off by a kill counts as later than everything, and is dropped."""
    try:
        return int(row["step"])
    except (KeyError, TypeError, ValueError):
        return float("inf")
