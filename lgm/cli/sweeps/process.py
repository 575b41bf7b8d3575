"""A trial in a process of its own: its command, its folder, what it reports, and how it ended."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from types import TracebackType
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf, open_dict

from lgm import stopping
from lgm.cli.command_line import quoted
from lgm.cli.sweeps.trial import RECORD, Record, handed_over
from lgm.errors import RunStopped
from lgm.files import Locked, locked

log = logging.getLogger(__name__)

_POLL_S = 0.1  # between looks at the process and its pipe
# Of Hydra's own overrides, those of the sweep; a trial is a run.
_OF_SWEEPS = (
    "hydra.sweep",
    "hydra.mode",
    "hydra.launcher",
    "hydra.run.dir",
    "hydra/sweeper",
    "hydra/launcher",
)

Report = Callable[[int, float], bool]


@dataclass(frozen=True)
class Outcome:
    """status: complete, pruned, failed or killed. value: of the metric. step: optimizer steps. error: the
    failure's line. never_logged: the metric is none that is logged. stopped: this process was told to end."""

    status: str
    value: float | None = None
    step: int = 0
    error: str = ""
    seconds: float = 0.0
    never_logged: bool = False
    stopped: RunStopped | None = None


def trial_folder(config: DictConfig, sweep_config: DictConfig, number: int) -> Path:
    """`hydra.sweep.dir`/`hydra.sweep.subdir` of a job."""
    before = HydraConfig.instance().cfg
    with open_dict(sweep_config):
        sweep_config.hydra.job.id = sweep_config.hydra.job.num = number
    HydraConfig.instance().set_config(sweep_config)  # what ${hydra:…} reads
    try:
        return Path(str(config.hydra.sweep.dir)).absolute() / str(sweep_config.hydra.sweep.subdir)
    finally:
        HydraConfig.instance().cfg = before


def trial_command(config: DictConfig, overrides: Iterable[str], folder: Path, number: int) -> list[str]:
    """The command of a trial: this process's own without `-m`, as a run in `folder`.

    overrides: of the job, all of them; of Hydra's own, those that are no sweep's are taken over.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    words = [sys.executable, *(["-m", spec.name] if spec else [to_absolute_path(sys.argv[0])])]
    flags = get_args_parser().parse_args(sys.argv[1:])
    for name in ("config_path", "config_name", "config_dir"):
        if (value := getattr(flags, name)) is not None:
            words += [f"--{name.replace('_', '-')}", value]
    hydra = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    kept = [text for text in hydra if not text.lstrip("+~").startswith(_OF_SWEEPS)]
    trial_overrides = [text for text in overrides if text.partition("=")[0] != "run_dir"]
    return [*words, *kept, *trial_overrides, f"hydra.job.num={number}", f"run_dir={quoted(str(folder))}"]


def run_trial(command: list[str], folder: Path, record: Record, report: Report | None = None) -> Outcome:
    """Run a trial and wait for its end.

    record: what stands in its folder beforehand. report: (step, value) -> whether to prune it.
    Where this process is told to end, the trial is told, may save its checkpoint, and is counted as killed.
    Raises ValueError where the folder holds another study's trial.
    """
    _take(folder, record)
    started, began_at = time.monotonic(), (folder / RECORD).stat().st_mtime
    with _Process(command, folder, report) as process:
        stopped = process.wait()
    logs = [path for path in folder.glob("error_rank*.log") if path.stat().st_mtime >= began_at]
    outcome = _outcome(process.code, Record.read(folder), time.monotonic() - started, bool(logs))
    if stopped is None:
        return outcome
    return Outcome("killed", step=outcome.step, seconds=outcome.seconds, stopped=stopped)


def _take(folder: Path, record: Record) -> None:
    """Write the record of a trial that begins, into a folder that is new or its own."""
    before = Record.read(folder)
    is_own = before is not None and (before.study, before.params) == (record.study, record.params)
    if not is_own and (folder / "checkpoints").is_dir() and (record.study or (before and before.study)):
        raise ValueError(
            f"{folder} holds a run that is not of this study, whose checkpoint trial {record.number} would "
            "go on from; give another run_dir, or remove that folder"
        )
    try:
        with locked(folder / ".lock", wait=False):
            record.write(folder)
    except Locked as error:
        if not is_own:
            raise ValueError(f"{folder} is in use by {error.holder}; give another run_dir") from error
        log.info("%s: waiting for the end of %s", folder, error.holder)
        with locked(folder / ".lock"):  # its sweep was killed a moment ago, and it ends with that
            record.write(folder)


class _Process:
    """The process of a trial, its pipe, and signals to this one meanwhile."""

    def __init__(self, command: list[str], folder: Path, report: Report | None) -> None:
        self._report = report
        self._buffer = b""
        self.code = 0
        self._descriptors: list[int] = []
        pipe = None
        if report is not None:
            self._values, values = os.pipe()
            answers, self._answers = os.pipe()
            pipe = (answers, values)
            self._descriptors = [self._values, self._answers]
        environment = {**os.environ, **handed_over(folder, pipe)}
        environment.pop("LGM_SWEEP_DIR", None)
        try:
            self._process = Popen(command, env=environment, pass_fds=pipe or ())
        finally:
            # The child's ends: held here too, its end would never be seen as the pipe's.
            for descriptor in pipe or ():
                os.close(descriptor)

    def __enter__(self) -> _Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for descriptor in self._descriptors:
            os.close(descriptor)

    def wait(self) -> RunStopped | None:
        """Answer its reports until it ends; returns the stop that this process was asked for meanwhile."""
        try:
            while self._process.poll() is None:
                self._answer_reports()
            stopped = None
        except RunStopped as error:
            stopped = error
            with stopping.writing(), suppress(ProcessLookupError):  # its checkpoint, in fact
                self._process.send_signal(error.signal_number)
                self._process.wait()
        self.code = self._process.returncode
        return stopped

    def _answer_reports(self) -> None:
        if self._report is None:
            with suppress(TimeoutExpired):
                self._process.wait(_POLL_S)
            return
        if not select.select([self._values], [], [], _POLL_S)[0]:
            return
        received = os.read(self._values, 1 << 16)
        if not received:  # its end is closed: it is about to end
            with suppress(TimeoutExpired):
                self._process.wait(_POLL_S)
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        for line in lines:
            message = json.loads(line)
            prunes = self._report(message["step"], message["value"])
            with suppress(BrokenPipeError):
                os.write(self._answers, b"p" if prunes else b"g")


def _outcome(code: int, record: Record | None, seconds: float, has_failed_rank: bool) -> Outcome:
    """has_failed_rank: another rank says why it has ended."""
    if record is None:
        return Outcome("killed" if code < 0 else "failed", seconds=seconds, error=f"its {RECORD} is gone")
    facts: dict[str, Any] = {"step": record.step, "seconds": seconds, "never_logged": record.never_logged}
    if code == 0 and record.status in ("complete", "pruned"):
        return Outcome(record.status, value=record.value, **facts)
    if record.status == "failed":
        is_killed = record.lost_rank and not has_failed_rank
        return Outcome("killed" if is_killed else "failed", error=record.error, **facts)
    # Popen gives -signal; a shell in between gives 128 + signal.
    if code < 0 or code > 128:
        number = -code if code < 0 else code - 128
        return Outcome("killed", error=f"ended by {_signal_name(number)}", **facts)
    return Outcome("failed", error=f"exit code {code}, see its output", **facts)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
