"""Runs that are killed by SIGKILL at random moments, also inside a save, against one that is left alone.

    python -m tests.kills --kills 20 --seed 0 --out kills.md
    python -m tests.kills --kills 6 --sharded --workers 0 2        FSDP on two processes, sharded checkpoints

Each run of a micro model on the bundled objects saves after every step, is killed `--kills-per-run` times at
a moment drawn at random (every second time while a checkpoint is being written), and goes on by the same
command. Its last checkpoint is then compared with that of a run of the same options that nobody has killed:
weights, EMA weights and moments, bit by bit. Ends with a table, and exit code 1 where one of them differs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lgm.models.sharded_checkpoint import Shards, newest, read_index
from tests.integration.running import MICRO, ROOT

_OPTIONS = [
    *(option for option in MICRO if not option.startswith(("trainer=", "data.num_workers"))),
    *("data=quickstart", "train.val_every_steps=1000000", "train.checkpoint_every_steps=1"),
    *(
        "train.log_every_steps=1",
        "train.global_batch_size=2",
        "data.micro_batch_size=1",
        "data.max_val_objects=2",
    ),
    "data/augment=none",
    "scheduler.warmup_steps=1",
]


@dataclass(frozen=True)
class Setup:
    workers: int
    processes: int
    ema: bool
    sharded: bool = False

    def command(self, run_dir: Path, steps: int) -> list[str]:
        trainer = "fsdp_sim" if self.sharded else "cpu" if self.processes == 1 else "ddp_sim"
        own = [f"trainer={trainer}", f"data.num_workers={self.workers}", f"run_dir={run_dir}"]
        own += [f"callbacks={'train_ema' if self.ema else 'train'}", f"train.max_steps={steps}"]
        return [sys.executable, str(ROOT / "train.py"), *_OPTIONS, *own]


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def mark_of(run_dir: Path) -> Path:
    """The file that is replaced when a save is complete."""
    folder = run_dir / "checkpoints"
    return (
        folder / "last.sharded" / "index.json" if (folder / "last.sharded").exists() else folder / "last.ckpt"
    )


def step_of(run_dir: Path) -> int:
    mark = mark_of(run_dir)
    if not mark.is_file():
        return 0
    if mark.name == "index.json":
        return read_index(mark.parent)[0].step
    return int(torch.load(mark, weights_only=True)["global_step"])


def is_saving(run_dir: Path) -> bool:
    """Whether a checkpoint is being written: its partial file, or a shard of a save that is not complete."""
    folder = run_dir / "checkpoints"
    if (folder / "last.ckpt.partial").exists():
        return True
    root = folder / "last.sharded"
    if not root.is_dir():
        return False
    complete = {save.folder for save in read_index(root)}
    return any(path.is_dir() and path.name not in complete for path in root.iterdir())


def kill_once(command: list[str], run_dir: Path, log: Path, rng: random.Random, inside_save: bool) -> str:
    """Start or go on, kill; returns where it was: "step", "save" (its files are left), or "ended"."""
    begin = mark_of(run_dir).stat().st_mtime_ns if step_of(run_dir) else 0
    process = start(command, log)
    try:
        # From the first new checkpoint on: before it there is only Python's start.
        while process.poll() is None and not (
            mark_of(run_dir).is_file() and mark_of(run_dir).stat().st_mtime_ns != begin
        ):
            time.sleep(0.002)
        deadline = time.monotonic() + rng.uniform(0.0, 2.0)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        while inside_save and process.poll() is None and not is_saving(run_dir):
            pass
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        return "ended"
    return "save" if is_saving(run_dir) else "step"


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def state_of(run_dir: Path) -> Any:
    mark = mark_of(run_dir)
    if mark.name == "index.json":
        return Shards.of_folder(newest(mark.parent)).full()
    return torch.load(mark, weights_only=True)


def is_same(one: Path, other: Path) -> bool:
    states = [state_of(path) for path in (one, other)]
    names = ("global_step", "state_dict", "ema", "optimizer_states")
    return all(equal(states[0].get(name), states[1].get(name)) for name in names)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-per-run", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of a run")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sharded", action="store_true", help="trainer=fsdp_sim, two processes, without EMA")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table to this file as well")
    args = parser.parse_args(arguments)
    rng, done, all_same = random.Random(args.seed), 0, True
    rows = [
        "| workers | processes | EMA | killed at | in a save | bit-identical |",
        "|---|---|---|---|---|---|",
    ]
    emas = itertools.cycle([True, False])
    setups = itertools.cycle(itertools.product([2] if args.sharded else args.processes, args.workers))
    with tempfile.TemporaryDirectory() as folder:
        for number in itertools.count():
            if done >= args.kills:
                break
            processes, workers = next(setups)
            setup = Setup(workers, processes, next(emas) and not args.sharded, args.sharded)
            whole, cut = Path(folder) / f"{number}_whole", Path(folder) / f"{number}_cut"
            logs = [path.with_suffix(".log") for path in (whole, cut)]
            if start(setup.command(whole, args.steps), logs[0]).wait():
                raise SystemExit(logs[0].read_text())
            steps, saves = [], 0
            for _ in range(min(args.kills_per_run, args.kills - done)):
                where = kill_once(
                    setup.command(cut, args.steps), cut, logs[1], rng, inside_save=done % 2 == 1
                )
                if where == "ended":
                    break
                done, saves = done + 1, saves + (where == "save")
                steps.append(step_of(cut))
            if start(setup.command(cut, args.steps), logs[1]).wait():
                raise SystemExit(logs[1].read_text())
            same = is_same(whole, cut)
            all_same = all_same and same
            ema = "yes" if setup.ema else "no"
            killed = ", ".join(map(str, steps))
            rows.append(
                f"| {workers} | {processes} | {ema} | {killed} | {saves} | {'yes' if same else 'NO'} |"
            )
            sys.stdout.write(rows[-1] + "\n")
            sys.stdout.flush()
    table = "\n".join(rows) + "\n"
    if args.out is not None:
        args.out.write_text(table)
    sys.stdout.write(f"{done} kills\n{table}")
    return 0 if all_same else 1


if __name__ == "__main__":
    sys.exit(main())
