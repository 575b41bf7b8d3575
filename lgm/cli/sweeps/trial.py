"""A trial's own process: which trial it is, what it reports while training, and its outcome.

The sweep's process hands over an environment variable. Values go to it through a pipe, a line each, and it
answers whether the trial is to be pruned: so the study has one writer per trial, and a trial needs neither
Optuna nor the storage's password. The outcome is a file in the trial's folder, `trial.json`.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lgm import stopping
from lgm.cli.faults import is_of_a_peer
from lgm.errors import reading
from lgm.files import write_text

RECORD = "trial.json"
VARIABLE = "LGM_TRIAL"


class MetricNeverLogged(ValueError):
    """The metric of a sweep is none that the training logs: no other trial would be any better."""


@dataclass
class Record:
    """A trial's parameters and outcome, `<run_dir>/trial.json`.

    study: of which study; "" in a grid. number: of the trial, or of the first where it was run again.
    params: what the sweep has set. status: running, complete, pruned or failed. value: of the metric; None
    where it was never measured. step: optimizer steps at the end. error: the line of a failure.
    never_logged: the failure is that of the metric's name. lost_rank: it is that another rank is gone.
    """

    study: str
    number: int
    params: dict[str, str] = field(default_factory=dict)
    status: str = "running"
    value: float | None = None
    step: int = 0
    error: str = ""
    never_logged: bool = False
    lost_rank: bool = False

    def write(self, folder: Path) -> None:
        """Write the record into a trial's folder, in place of what stands there."""
        write_text(folder / RECORD, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """None where the folder has none; raises ValueError for a damaged one."""
        path = folder / RECORD
        if not path.is_file():
            return None
        with reading(path, "give another run_dir"):
            return cls(**json.loads(path.read_text(encoding="utf-8")))


class Trial:
    """This process as a trial of a sweep; rank 0 alone reports and records.

    folder: the trial's. parent: the sweep's process. pipe: descriptors to read answers from and to write
    values to; None in a grid, where nobody asks.
    """

    def __init__(self, folder: str, parent: int, pipe: tuple[int, int] | None) -> None:
        self.folder = Path(folder)
        self._parent = parent
        self._pipe = pipe
        self._pruned = False
        self.step = 0

    def begin(self) -> None:
        """End with the sweep's process: an orphan would train on beside the one that takes its place."""
        stopping.end_with(self._parent)

    def report(self, step: int, value: float) -> bool:
        """Tell the sweep the metric after `step` optimizer steps; returns whether it prunes the trial."""
        self.step = step
        if self._pipe is None:
            return False
        answers, values = self._pipe
        # One line for each report, and the answer awaited: pruning is decided before the next step.
        os.write(values, f"{json.dumps({'step': step, 'value': value})}\n".encode())
        self._pruned = os.read(answers, 1) == b"p"
        return self._pruned

    def complete(self, value: float | None) -> None:
        """Record the metric's last value; a trial that was pruned stays pruned, one that is not finite has
        failed.
        """
        if value is not None and not math.isfinite(value):
            self._update(status="failed", error=f"the metric ended as {value}", value=None)
        else:
            self._update(status="pruned" if self._pruned else "complete", value=value)

    def failed(self, line: str, error: BaseException) -> None:
        """Record why the run has failed. line: the error in one line."""
        never_logged = isinstance(error, MetricNeverLogged)
        self._update(status="failed", error=line, never_logged=never_logged, lost_rank=is_of_a_peer(error))

    def _update(self, **changes: Any) -> None:
        record = Record.read(self.folder)
        if record is not None:
            Record(**{**asdict(record), "step": self.step, **changes}).write(self.folder)


_current: Trial | None = None


def current_trial() -> Trial | None:
    """The trial that this process computes; None outside of a sweep.

    Ranks that Lightning starts inherit the variable: they take part in what rank 0 reports.
    """
    global _current
    if _current is None and (text := os.environ.get(VARIABLE)):
        _current = Trial(**json.loads(text))
    return _current


def handed_over(folder: Path, pipe: tuple[int, int] | None) -> dict[str, str]:
    """The environment variable of a trial's process."""
    return {VARIABLE: json.dumps({"folder": str(folder), "parent": os.getpid(), "pipe": pipe})}
