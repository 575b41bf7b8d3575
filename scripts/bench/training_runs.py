"""Runs of train.py as a person starts them, for benchmarks: command, processes, and what they wrote."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lgm.models.sharded_checkpoint import read_index

ROOT = Path(__file__).parents[2]
_ASK_EVERY_S = 0.02
ENDLESS = 1_000_000  # optimizer steps
NO_CHECKPOINTS = ("callbacks.checkpoint_last=null", "callbacks.checkpoint_best=null")
# Trainers by device and whether parameters are sharded; of one process, which needs no strategy, the second.
_TRAINERS = {("cuda", False): ("ddp", "gpu"), ("cuda", True): ("fsdp", "fsdp")}
_TRAINERS |= {("cpu", False): ("ddp_sim", "cpu"), ("cpu", True): ("fsdp_sim", "fsdp_sim")}


class RunFailed(Exception):
    """A run ended otherwise than it should, or not in time; the message has the end of its log."""


@dataclass(frozen=True)
class Setup:
    """What all runs of a measurement have in common.

    options: of train.py: model, data, loss; `trainer.strategy.…` is left out where a run is not DDP.
    batch: objects per forward pass of a process. deadline: of all runs, on the clock of time.monotonic.
    """

    device: str
    options: tuple[str, ...]
    batch: int
    folder: Path
    deadline: float

    def command(
        self,
        name: str,
        processes: int,
        max_steps: int,
        *options: str,
        accumulate: int = 1,
        sharded: bool = False,
    ) -> list[str]:
        """The command of a run in `<folder>/<name>`."""
        several, one = _TRAINERS[self.device, sharded]
        is_ddp = processes > 1 and not sharded
        given = [o for o in self.options if is_ddp or not o.startswith("trainer.strategy.")]
        trainer = [f"trainer={one if processes == 1 else several}", f"trainer.devices={processes}"]
        own = [f"data.micro_batch_size={self.batch}", f"train.max_steps={max_steps}"]
        own += [f"train.global_batch_size={self.batch * processes * accumulate}"]
        own += ["scheduler=constant", "scheduler.warmup_steps=1", f"train.val_every_steps={ENDLESS}"]
        own += ["callbacks.progress=null", "trainer.enable_progress_bar=false", "callbacks.images=null"]
        # Steps alone are measured, so nothing is validated, also not at the end.
        own += ["+trainer.limit_val_batches=0", "train.checkpoint_every_minutes=null"]
        words = [sys.executable, str(ROOT / "train.py"), f"run_dir={self.folder / name}"]
        return [*words, *given, *trainer, *own, *options]


class Run:
    """A run in a process group of its own; what it prints is appended to `<run_dir>.log`.

    devices: numbers of the GPUs that it may use; None for all.
    """

    def __init__(
        self, command: list[str], run_dir: Path, deadline: float, devices: list[int] | None = None
    ) -> None:
        self.run_dir, self._deadline = run_dir, deadline
        self._log = run_dir.with_name(f"{run_dir.name}.log")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        here = str(Path(__file__).parent)  # rank_report lies here
        paths = os.pathsep.join([here, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": paths}
        if devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *args: object) -> None:
        with suppress(ProcessLookupError):  # whatever is still there is ours: it began the group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> int:
        """The exit code, when all processes of the group have ended."""
        self._until(lambda: self._process.poll() is not None and not self.members())
        return self._process.returncode

    def succeed(self) -> None:
        """Wait for exit code 0; RunFailed for any other."""
        if (code := self.wait()) != 0:
            raise RunFailed(self._said(f"exit code {code}"))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that the run does; RunFailed where it ends before."""
        self._until(lambda: condition() or self._process.poll() is not None)
        if not condition():
            raise RunFailed(self._said(f"exit code {self._process.returncode}, too soon"))

    def members(self) -> list[int]:
        """Its live processes."""
        return group_members(self._process.pid)

    def signal_group(self, number: int) -> None:
        """A signal to all processes, as a scheduler sends it."""
        os.killpg(self._process.pid, number)

    def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            if time.monotonic() > self._deadline:
                raise RunFailed(self._said("no time is left"))
            time.sleep(_ASK_EVERY_S)

    def _said(self, fault: str) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n  ".join([f"{self.run_dir.name}: {fault}; {self._log} ends with", *lines[-8:]])


def group_members(group: int) -> list[int]:
    """Live processes of a process group (Linux)."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                members.append(int(stat.parent.name))
    return members


@dataclass
class RankFiles:
    """The reports of `rank_report.RankReport`, in a folder of one process's life."""

    folder: Path
    ranks: list[dict] = field(default_factory=list)

    def options(self, **arguments: object) -> list[str]:
        """Of train.py, to have them written."""
        added = {"_target_": "rank_report.RankReport", "folder": self.folder, **arguments}
        return [f"+callbacks.rank_report.{name}={value}" for name, value in added.items()]

    def read(self, processes: int) -> bool:
        """Whether all ranks have written one; `ranks` are these."""
        paths = [self.folder / f"rank_{rank}.json" for rank in range(processes)]
        if not all(path.is_file() for path in paths):
            return False
        self.ranks = [json.loads(path.read_text()) for path in paths]
        return True


def column(run_dir: Path, name: str) -> dict[int, float]:
    """A column of metrics.csv, by step; rows without a value are left out."""
    path = run_dir / "metrics.csv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {int(float(row["step"])): float(row[name]) for row in csv.DictReader(file) if row.get(name)}


def checkpoint_of(run_dir: Path, sharded: bool) -> Path:
    """The file whose replacement ends a save."""
    folder = run_dir / "checkpoints"
    return folder / "last.sharded" / "index.json" if sharded else folder / "last.ckpt"


def checkpoint_step(run_dir: Path, sharded: bool) -> int:
    """Optimizer steps of the newest checkpoint; 0 where there is none."""
    path = checkpoint_of(run_dir, sharded)
    if not path.is_file():
        return 0
    if sharded:
        return read_index(path.parent)[0].step
    # Mapped, not read: a file has gigabytes, and this is one number of it.
    return int(torch.load(path, weights_only=True, mmap=True)["global_step"])
