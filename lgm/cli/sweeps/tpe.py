"""A sweep by an Optuna sampler: trial after trial until the study has as many as were asked for."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext
from omegaconf import DictConfig

from lgm.cli.build import made
from lgm.cli.launch import outside_launch
from lgm.cli.sweeps.process import Outcome, run_trial, trial_command, trial_folder
from lgm.cli.sweeps.report import SweepReport
from lgm.cli.sweeps.space import Space, search_space
from lgm.cli.sweeps.storage import open_storage
from lgm.cli.sweeps.study import Asked, SweepStudy, Task
from lgm.cli.sweeps.trial import Record
from lgm.errors import shown

log = logging.getLogger(__name__)

# Overrides that say where and how a trial is computed, not what.
_OF_A_HOST = ("run_dir", "data.path", "data.cache_dir", "data.num_workers", "trainer", "logger", "callbacks")
_DIRECTIONS = ("maximize", "minimize")


class TPESweep:
    """options: `hydra.sweeper` as plain values (configs/hparams_search/base.yaml)."""

    def __init__(self, config: DictConfig, context: HydraContext, options: dict[str, Any]) -> None:
        self.config, self.context, self.options = config, context, options
        self.folder = Path(str(config.hydra.sweep.dir)).absolute()
        self.metric = str(config.optimized_metric)
        self.report = SweepReport(self.folder, self.metric, self._direction)

    def run(self, arguments: Sequence[str]) -> float | None:
        """Returns the best value. Raises ValueError for what cannot be searched, stored or measured."""
        self._check()
        overrides = OverridesParser.create(self.context.config_loader).parse_overrides(list(arguments))
        searched = [override for override in overrides if override.is_sweep_override()]
        fixed = [override.input_line for override in overrides if not override.is_sweep_override()]
        space = search_space(self.options["params"] or {}, searched)
        # A misspelt key is said at once, not by the first trial's process.
        self._check_composes(space, fixed)
        study = self._study(space, fixed)
        try:
            while self._run_next(study, fixed):
                pass
        finally:
            best = self.report.finish(study.rows(), study.study)
        if study.num_running:
            log.info(
                "%d trials are still running elsewhere; the same command after their end shows all",
                study.num_running,
            )
        return best

    @property
    def _direction(self) -> str:
        return str(self.options["direction"])

    def _check(self) -> None:
        for key in ("n_trials", "max_retries"):
            least, value = int(key == "n_trials"), self.options[key]
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"hydra.sweeper.{key}={value} must be a whole number from {least} on")
        if self._direction not in _DIRECTIONS:
            raise ValueError(
                f"hydra.sweeper.direction={self._direction} must be one of {', '.join(_DIRECTIONS)}"
            )
        if (launch := outside_launch()) is not None:
            raise ValueError(
                f"a sweep starts the processes of its trials itself, and {launch.launcher} has started this "
                f"one ({launch.source}); start one python train.py -m per machine, and give all of them one "
                "hydra.sweeper.storage"
            )

    def _check_composes(self, space: Space, fixed: Sequence[str]) -> None:
        """Raises Hydra's error for a key that does not exist, before the study is made."""
        middle = space.suggested(_Middle())
        overrides = [*fixed, *(f"{key}={value}" for key, value in middle.items())]
        self.context.config_loader.load_sweep_config(self.config, overrides)

    def _study(self, space: Space, fixed: Sequence[str]) -> SweepStudy:
        shared = [text for text in fixed if not text.lstrip("+~").startswith(_OF_A_HOST)]
        return SweepStudy(
            open_storage(self.options["storage"], self.folder),
            str(self.options["study_name"]),
            Task(space, self.metric, self._direction, tuple(shared)),
            self.options["n_trials"],
            made(self.options["sampler"]),
            made(self.options["pruner"]),
            self.options["seed"],
            self.options["max_retries"],
        )

    def _run_next(self, study: SweepStudy, fixed: Sequence[str]) -> bool:
        """Run one trial; returns whether there may be another."""
        with study.next() as asked:
            if asked is None:
                return False
            words = " ".join(f"{key}={value}" for key, value in asked.values.items())
            log.info("trial %d (of %d): %s", asked.root, study.n_trials, words)
            outcome = self._outcome(study, asked, fixed)
            # Nobody has seen a step: it is the command that is wrong, as a rule, and not this trial.
            is_void = outcome.status == "failed" and outcome.step == 0 and not study.is_measured
            study.tell(asked, outcome, is_void=is_void or outcome.never_logged)
        if outcome.stopped is not None:
            raise outcome.stopped
        if outcome.never_logged or is_void:
            raise ValueError(f"trial {asked.root} ({words}): {outcome.error}")
        result = f": {outcome.error}" if outcome.error else f", {self.metric}={_number(outcome.value)}"
        log.info("trial %d: %s at step %d%s", asked.root, outcome.status, outcome.step, result)
        self.report.write_table(study.rows())
        return True

    def _outcome(self, study: SweepStudy, asked: Asked, fixed: Sequence[str]) -> Outcome:
        overrides = [*fixed, *(f"{key}={value}" for key, value in asked.values.items())]
        sweep_config = self.context.config_loader.load_sweep_config(self.config, overrides)
        folder = trial_folder(self.config, sweep_config, asked.root)
        command = trial_command(self.config, overrides, folder, asked.root)
        record = Record(study.id, asked.root, asked.values)
        report: Callable[[int, float], bool] = lambda step, value: study.report(asked, step, value)  # noqa: E731
        outcome = run_trial(command, folder, record, report)
        if outcome.status != "complete" or outcome.value is not None:
            return outcome
        if (value := study.last_reported(asked)) is not None:  # it had ended before it was run again
            return Outcome("complete", value, outcome.step, seconds=outcome.seconds)
        error = (
            f"optimized_metric={shown(self.metric)} was never logged; metrics.csv in {folder} has what was"
        )
        return Outcome("failed", None, outcome.step, error, outcome.seconds, never_logged=True)


class _Middle:
    """As a trial that suggests the first or lowest value of everything."""

    def suggest_float(self, name: str, low: float, high: float, **kwargs: Any) -> float:
        return low

    def suggest_int(self, name: str, low: int, high: int, **kwargs: Any) -> int:
        return low

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return choices[0]


def _number(value: float | None) -> str:
    return "none" if value is None or not math.isfinite(value) else f"{value:.4f}"
