"""A study that several sweeps share: which trial is next, which one was killed, how many are missing.

A trial that was killed is run again with the same parameters, in the same folder, so that it goes on from its
last checkpoint. In Optuna it is a failed trial and a further one, whose attributes say which it repeats:
`root`, the first of its kind, `retry_of` and `retries`. `n_trials` counts neither what is repeated nor what
was refused before the first step.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lgm.cli.sweeps.process import Outcome
from lgm.cli.sweeps.space import Space
from lgm.cli.sweeps.storage import Storage
from lgm.cli.sweeps.table import SURPLUS, Row, outcome_of, row_of
from lgm.errors import shown

log = logging.getLogger(__name__)

_IDENTITY = "lgm"


@dataclass(frozen=True)
class Task:
    """Search space and metric of a study: trials of another task do not compare.

    space: the search space. metric, direction: what is optimised, "maximize" or "minimize". fixed: overrides
    that all trials share, for a note where they have changed.
    """

    space: Space
    metric: str
    direction: str
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A trial to run. trial: Optuna's. root: the number that its folder has. values: by key, as overrides."""

    trial: Any
    root: int
    values: dict[str, str]

    @property
    def number(self) -> int:
        """The trial's own number in the study; `root` is that of its folder."""
        return self.trial.number


class SweepStudy:
    """n_trials: how many there are to be in all. make_sampler: of a seed. seed: None draws others each time.
    max_retries: how often a trial that was killed is run again."""

    def __init__(
        self,
        storage: Storage,
        name: str,
        task: Task,
        n_trials: int,
        make_sampler: Callable[..., Any],
        pruner: Any,
        seed: int | None,
        max_retries: int,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for what in (
            {"category": optuna.exceptions.ExperimentalWarning},
            {"message": "Heartbeat of storage"},
        ):
            warnings.filterwarnings(
                "ignore", **what
            )  # a study that is asked and told beats by hand, as `Storage` does
        self._states = optuna.trial.TrialState
        self.storage, self.task, self.n_trials = storage, task, n_trials
        self._make_sampler, self._seed, self._max_retries = make_sampler, seed, max_retries
        with storage.alone():
            self.study = optuna.create_study(
                storage=storage.backend,
                study_name=name,
                direction=task.direction,
                pruner=pruner,
                load_if_exists=True,
            )
            self.id = self._check_identity()
        done = len([trial for trial in self._counted() if trial.state.is_finished()])
        if done > n_trials:
            raise ValueError(
                f"hydra.sweeper.n_trials={n_trials} is smaller than the {done} trials that {storage.name} "
                f"holds; give n_trials={done} or more, or another storage"
            )
        if done:
            log.info("%s: %d of %d trials are done", storage.name, done, n_trials)

    def _check_identity(self) -> str:
        """Whether what the storage holds is of this task; returns the study's own id."""
        task = self.task
        now = {"space": task.space.described(), "metric": task.metric, "direction": task.direction}
        then = self.study.user_attrs.get(_IDENTITY)
        if then is None:
            if self.study.get_trials(deepcopy=False):
                raise ValueError(
                    f"{self.storage.name}: its study {self.study.study_name} is of another program; give "
                    "another hydra.sweeper.study_name or storage"
                )
            then = {**now, "id": uuid.uuid4().hex, "fixed": list(task.fixed)}
            self.study.set_user_attr(_IDENTITY, then)
        for key in ("metric", "direction", "space"):
            if then[key] != now[key]:
                raise ValueError(
                    f"{self.storage.name} holds a study of another search: "
                    f"{_difference(key, then[key], now[key])}; set it back, or give another run_dir or "
                    "hydra.sweeper.study_name"
                )
        changed = [f"-{text}" for text in then["fixed"] if text not in task.fixed]
        changed += [f"+{text}" for text in task.fixed if text not in then["fixed"]]
        if changed:
            log.warning(
                "%s: earlier trials were run with other options (%s): their values may not compare",
                self.storage.name,
                shown(" ".join(changed)),
            )
        return str(then["id"])

    @contextmanager
    def next(self) -> Iterator[Asked | None]:
        """The trial to run now, held as running by this process for the block; None where none is missing."""
        with self.storage.alone():
            self._give_up_killed()
            asked = self._ask() if self._is_one_missing() else None
            held = None if asked is None else self.storage.running(asked.number, asked.trial._trial_id)
            if held is not None:
                # Held before other sweeps may look: a running trial without its lock counts as killed.
                held.__enter__()
        try:
            yield asked
        finally:
            if held is not None:
                held.__exit__(None, None, None)

    def _is_one_missing(self) -> bool:
        trials = self._counted()
        is_waiting = any(trial.state == self._states.WAITING for trial in trials)
        return is_waiting or len(trials) < self.n_trials

    def _ask(self) -> Asked | None:
        self.study.sampler = self._make_sampler(seed=self._next_seed())
        trial = self.study.ask()
        if self.storage.locks is None and self._is_surplus(trial):
            return None
        values = self.task.space.suggested(trial)
        trial.set_user_attr("host", socket.gethostname())
        if (killed := trial.user_attrs.get("retry_of")) is not None:  # what it reported before its end
            for step, value in self._reported(killed).items():
                trial.report(value, step)
        return Asked(trial, int(trial.user_attrs.get("root", trial.number)), values)

    def _next_seed(self) -> int | None:
        """By number: sweeps that share a study, and one that goes on, must not draw the same again."""
        if self._seed is None:
            return None
        words = [self._seed, len(self.study.get_trials(deepcopy=False))]
        if self.storage.locks is None:  # two may see the same number
            words += [os.getpid(), zlib.crc32(socket.gethostname().encode())]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    def _is_surplus(self, trial: Any) -> bool:
        """Without a common lock two sweeps may both take the last trial: the one with the higher number is
        given up."""
        if sum(other.number < trial.number for other in self._counted()) < self.n_trials:
            return False
        trial.set_user_attr("void", True)
        trial.set_user_attr("outcome", SURPLUS)
        self.study.tell(trial, state=self._states.FAIL)
        return True

    def tell(self, asked: Asked, outcome: Outcome, is_void: bool = False) -> None:
        """Record how a trial ended; one that was killed is put in line again.

        is_void: it says nothing of its parameters, and is not counted.
        """
        facts = {"outcome": outcome.status, "step": outcome.step, "seconds": round(outcome.seconds, 1)}
        for key, value in {**facts, "error": outcome.error, "void": is_void}.items():
            asked.trial.set_user_attr(key, value)
        state = {"complete": self._states.COMPLETE, "pruned": self._states.PRUNED}
        self.study.tell(
            asked.trial,
            outcome.value if outcome.status == "complete" else None,
            state=state.get(outcome.status, self._states.FAIL),
        )
        if outcome.status == "killed":
            self._retry(self.study.get_trials(deepcopy=False)[asked.number])

    def report(self, asked: Asked, step: int, value: float) -> bool:
        """A value while training; returns whether to prune. What the storage refuses costs a line."""
        try:
            if step not in self._reported(asked.number):
                asked.trial.report(value, step)
            return bool(asked.trial.should_prune())
        except Exception as error:  # a full disk, a server that is away
            log.warning("trial %d: its value at step %d was not stored: %s", asked.root, step, shown(error))
            return False

    def last_reported(self, asked: Asked) -> float | None:
        """The last value that a trial has reported, in an earlier process perhaps."""
        reported = self._reported(asked.number)
        return reported[max(reported)] if reported else None

    def _reported(self, number: int) -> Mapping[int, float]:
        return dict(self.study.get_trials(deepcopy=False)[number].intermediate_values)

    def _give_up_killed(self) -> None:
        """Trials that are marked as running, and which no process runs."""
        if self.storage.locks is None:
            from optuna.storages import fail_stale_trials

            fail_stale_trials(self.study)
        for trial in self.study.get_trials(deepcopy=False):
            if self.storage.locks is not None and trial.state == self._states.RUNNING:
                if self.storage.is_running(trial.number):
                    continue
                self.study.tell(trial.number, state=self._states.FAIL)
                trial = self.study.get_trials(deepcopy=False)[trial.number]
            if trial.state == self._states.FAIL and outcome_of(trial) == "killed":
                self._retry(trial)

    def _retry(self, trial: Any) -> None:
        """Put the same parameters in line once more, unless they are or were killed too often."""
        retries = int(trial.user_attrs.get("retries", 0)) + 1
        if trial.number in self._repeated():
            return
        root = int(trial.user_attrs.get("root", trial.number))
        if retries > self._max_retries:
            return
        log.warning("trial %d was killed; it is run again", root)
        attributes = {"root": root, "retry_of": trial.number, "retries": retries}
        self.study.enqueue_trial(trial.params, user_attrs=attributes)

    def _repeated(self) -> set[int]:
        trials = self.study.get_trials(deepcopy=False)
        return {trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs}

    def _counted(self) -> list[Any]:
        repeated = self._repeated()
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.number not in repeated and not trial.user_attrs.get("void")
        ]

    @property
    def num_running(self) -> int:
        """Trials that any process runs at the moment."""
        return sum(trial.state == self._states.RUNNING for trial in self._counted())

    @property
    def is_measured(self) -> bool:
        """Whether any trial has had a value so far."""
        states = (self._states.COMPLETE, self._states.PRUNED)
        return any(trial.state in states for trial in self.study.get_trials(deepcopy=False))

    def rows(self) -> list[Row]:
        """Every trial of the study, repeated ones too, in the order of their numbers."""
        trials = self.study.get_trials(deepcopy=False)
        return [row_of(trial) for trial in trials if outcome_of(trial) != SURPLUS]


def _difference(key: str, then: Any, now: Any) -> str:
    if not isinstance(then, Mapping):
        return f"{key} was {then} and is {now}"
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            return f"{name} was {then.get(name, 'not searched')} and is {now.get(name, 'not searched')}"
    return f"{key} has another order"
