"""Files that a sweep writes into its folder: `sweep.csv` and `sweep.png`; and its table on the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lgm.cli.sweeps.importance import importances
from lgm.cli.sweeps.table import CSV_NAME, Row, ranked, table_text, write_csv
from lgm.errors import first_line

log = logging.getLogger(__name__)

IMAGE_NAME = "sweep.png"


@dataclass(frozen=True)
class SweepReport:
    """folder: of the sweep. direction: of the metric, "maximize" or "minimize".

    What cannot be written costs a line: the trials are more than their table.
    """

    folder: Path
    metric: str
    direction: str

    def write_table(self, rows: Sequence[Row]) -> None:
        """Write `sweep.csv`: after each trial, so that a sweep that is killed leaves one, too."""
        try:
            write_csv(ranked(rows, self.direction), self.folder / CSV_NAME, self.metric)
        except OSError as error:
            log.warning("%s was not written: %s", self.folder / CSV_NAME, first_line(error))

    def finish(self, rows: Sequence[Row], study: Any = None) -> float | None:
        """Write and show the table, draw the image; returns the best value of a complete trial.

        study: Optuna's; None in a grid.
        """
        if not rows:
            return None
        self.write_table(rows)
        rows = ranked(rows, self.direction)
        sys.stdout.write(f"{table_text(rows, self.metric)}\n{self.folder / CSV_NAME}\n")
        try:
            self._draw(rows, study)
        except OSError as error:
            log.warning("%s was not written: %s", self.folder / IMAGE_NAME, first_line(error))
        sys.stdout.flush()
        return next((row.value for row in rows if row.status == "complete"), None)

    def _draw(self, rows: Sequence[Row], study: Any) -> None:
        path = self.folder / IMAGE_NAME
        if find_spec("matplotlib") is None:
            log.warning("no %s without the package matplotlib: pip install 'lgm-training[plots]'", path.name)
            return
        from lgm.cli.sweeps.chart import draw

        if draw(rows, importances(rows, study), path, self.metric, self.direction):
            sys.stdout.write(f"{path}\n")
