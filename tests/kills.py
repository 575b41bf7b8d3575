"""Runs that are killed by SIGKILL at random moments, also inside a save, against one that is left alone.

    python -m tests.kills --kills 20 --seed 0 --out kills.md

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

    def command(self, run_dir: Path, steps: int) -> list[str]:
        trainer = "cpu" if self.processes == 1 else "ddp_sim"
        own = [f"trainer={trainer}", f"data.num_workers={self.workers}", f"run_dir={run_dir}"]
        own += [f"callbacks={'train_ema' if self.ema else 'train'}", f"train.max_steps={steps}"]
        return [sys.executable, str(ROOT / "train.py"), *_OPTIONS, *own]


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def step_of(run_dir: Path) -> int:
    path = run_dir / "checkpoints" / "last.ckpt"
    return int(torch.load(path, weights_only=True)["global_step"]) if path.is_file() else 0


def kill_once(command: list[str], run_dir: Path, log: Path, rng: random.Random, inside_save: bool) -> str:
    """Start or go on, kill; returns where it was: "step", "save" (its partial file is left), or "ended"."""
    folder, begin = run_dir / "checkpoints", step_of(run_dir)
    process = start(command, log)
    try:
        # From the first new checkpoint on: before it there is only Python's start.
        mark = (folder / "last.ckpt").stat().st_mtime_ns if begin else 0
        while process.poll() is None and not (
            (folder / "last.ckpt").is_file() and (folder / "last.ckpt").stat().st_mtime_ns != mark
        ):
            time.sleep(0.002)
        deadline = time.monotonic() + rng.uniform(0.0, 2.0)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        while inside_save and process.poll() is None and not (folder / "last.ckpt.partial").exists():
            pass
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        return "ended"
    return "save" if (folder / "last.ckpt.partial").exists() else "step"


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def is_same(one: Path, other: Path) -> bool:
    states = [torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (one, other)]
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table to this file as well")
    args = parser.parse_args(arguments)
    rng, done, all_same = random.Random(args.seed), 0, True
    rows = [
        "| workers | processes | EMA | killed at | in a save | bit-identical |",
        "|---|---|---|---|---|---|",
    ]
    emas = itertools.cycle([True, False])
    setups = itertools.cycle(itertools.product(args.processes, args.workers))
    with tempfile.TemporaryDirectory() as folder:
        for number in itertools.count():
            if done >= args.kills:
                break
            processes, workers = next(setups)
            setup = Setup(workers, processes, next(emas))
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
