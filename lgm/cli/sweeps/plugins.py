"""The sweeper and the launcher that Hydra sees as `hydra_plugins.lgm_sweeper` (`lgm.cli.sweeps.register`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lgm.cli.launch import outside_launch
from lgm.cli.masking import mask_sweep_records
from lgm.cli.sweeps.process import Outcome, run_trial, trial_command, trial_folder
from lgm.cli.sweeps.report import SweepReport
from lgm.cli.sweeps.table import Row
from lgm.cli.sweeps.trial import Record
from lgm.masking import masked_values

log = logging.getLogger(__name__)

_MODULE = "hydra_plugins.lgm_sweeper"


class TPESweeper(Sweeper):
    """`hparams_search=tpe` and its like: see configs/hparams_search/base.yaml for the options."""

    __module__ = _MODULE

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.config: DictConfig | None = None
        self.launcher = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra calls first; ValueError where optuna is missing, or another launcher is asked for."""
        self.hydra_context, self.config = hydra_context, config
        if find_spec("optuna") is None:
            raise ValueError(
                "this sweep needs the package optuna, which is not installed: "
                "pip install 'lgm-training[sweeps]'"
            )
        if config.hydra.launcher._target_ != f"{_MODULE}.TrialLauncher":
            raise ValueError(
                f"hydra.launcher._target_={config.hydra.launcher._target_}: this sweep starts each trial in "
                "a process of its own; leave launcher=… out, and start the command once per machine or GPU"
            )

    def sweep(self, arguments: list[str]) -> Any:
        """Run trials until the study has as many as were asked for; returns the best value."""
        from lgm.cli.sweeps.tpe import TPESweep

        return TPESweep(self.config, self.hydra_context, self.options).run(arguments)


class TrialLauncher(BasicLauncher):
    """Jobs of a grid one after the other, each in a process of its own; ends with a table and an image.

    Where a cluster has started this process as one of several, jobs run in it, as by Hydra's own launcher.
    """

    __module__ = _MODULE

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run each job of a grid; returns their results in Hydra's form, failed ones too."""
        if outside_launch() is not None:
            return super().launch(job_overrides, initial_job_idx)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        mask_sweep_records(folder)
        searched = _searched(job_overrides)
        jobs, rows = [], []
        options = (OmegaConf.select(self.config, key) for key in ("optimized_metric", "optimized_direction"))
        report = SweepReport(folder, *map(str, options))
        try:
            for number, overrides in enumerate(job_overrides, initial_job_idx):
                params = {key: value for key, value in _split(overrides) if key in searched}
                log.info(
                    "job %d: %s", number, " ".join(masked_values([f"{k}={v}" for k, v in params.items()]))
                )
                outcome = self._run(number, list(overrides), params)
                rows.append(_row(number, params, outcome))
                jobs.append(_returned(number, overrides, outcome))
                report.write_table(rows)
                if outcome.stopped is not None:
                    raise outcome.stopped
        finally:
            report.finish(rows)
        return jobs

    def _run(self, number: int, overrides: list[str], params: dict[str, str]) -> Outcome:
        sweep_config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        folder = trial_folder(self.config, sweep_config, number)
        command = trial_command(self.config, overrides, folder, number)
        return run_trial(command, folder, Record("", number, masked_values(params)))


PLUGINS = (TPESweeper, TrialLauncher)


def _split(overrides: Sequence[str]) -> list[tuple[str, str]]:
    parts = (text.partition("=") for text in overrides)
    return [(key.lstrip("+"), value) for key, _, value in parts]


def _searched(job_overrides: Sequence[Sequence[str]]) -> set[str]:
    """Keys that differ from job to job."""
    values: dict[str, set[str]] = {}
    for overrides in job_overrides:
        for key, value in _split(overrides):
            values.setdefault(key, set()).add(value)
    return {key for key, several in values.items() if len(several) > 1}


def _row(number: int, params: dict[str, str], outcome: Outcome) -> Row:
    return Row(
        number,
        outcome.status,
        outcome.value,
        dict(masked_values(params)),
        outcome.step,
        round(outcome.seconds, 1),
        outcome.error,
    )


def _returned(number: int, overrides: Sequence[str], outcome: Outcome) -> JobReturn:
    job = JobReturn(overrides=masked_values(list(overrides)))
    if outcome.status == "complete":
        job.status, job.return_value = JobStatus.COMPLETED, outcome.value
    else:
        # Hydra raises a failed job's error once it is asked for its value: the other jobs go on.
        job.status = JobStatus.FAILED
        job.return_value = ValueError(f"job {number}: {outcome.status}: {outcome.error}")
    return job
