"""A checkpoint's cost for a training step: the longest step with a save against the median of all others, for
saves by a background thread as train.py makes them, and for one that the step waits for.

    python scripts/bench/checkpoint.py --model nano --batch 1 --steps 12 --every 4
    python scripts/bench/checkpoint.py --model big --device cuda --ema --json out.json

Steps are train.py's own, through Lightning's trainer, with its callbacks, on the bundled objects: images of
the model's size, the preset's optimizer, `last.ckpt` every `--every` steps. A step's time is from the end of
one to the end of the next on the host, with the device synchronised, so that what a save queues on it counts.
Steps up to the first save are warm-up: compilation, cuDNN's search, and the host memory that saves copy to.
`state_gb` is the size of last.ckpt; `host_memory_gb` the largest resident set of the process, less that after
the first step (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.callbacks import LastCheckpoint
from lgm.cli import resolvers
from lgm.cli.plan import plan_training
from lgm.cli.train import build_training
from lgm.training.checkpoint_io import AsyncCheckpointIO

ROOT = Path(__file__).parents[2]


def resident_bytes() -> int:
    """Of this process, by Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class StepTimes(Callback):
    """Seconds of each step, and whether it ended with a save."""

    stage = 100  # after the checkpoints

    def __init__(self, wait: bool) -> None:
        self.wait = wait
        self.seconds: list[float] = []
        self.saved: list[bool] = []
        self.rss: list[int] = []  # before the buffers, and after each step
        self._ended = 0.0
        self._last_saved = 0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        if not self._ended:
            self._ended = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        (last,) = (c for c in trainer.checkpoint_callbacks if isinstance(c, LastCheckpoint))
        saved = last._last_global_step_saved != self._last_saved
        self._last_saved = last._last_global_step_saved
        if saved and self.wait:
            trainer.strategy.checkpoint_io.wait()
        if module.device.type != "cpu":
            torch.accelerator.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._ended)
        self.saved.append(saved)
        self.rss.append(resident_bytes())
        self._ended = now


class PeakMemory:
    """The largest resident set of this process, asked every 10 ms."""

    def __enter__(self) -> PeakMemory:
        self.peak, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.peak = max(self.peak, resident_bytes())

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()


def options(args: argparse.Namespace, folder: Path) -> list[str]:
    """Overrides of a training run that saves every few steps."""
    trainer = "cpu" if args.device == "cpu" else "gpu"
    own = [
        f"model={args.model}",
        "recipe=published",
        f"trainer={trainer}",
        "data=quickstart",
        f"run_dir={folder}",
    ]
    own += [f"callbacks={'train_ema' if args.ema else 'train'}", f"data.micro_batch_size={args.batch}"]
    own += [f"train.global_batch_size={args.batch}", f"train.max_steps={args.steps}"]
    own += [f"train.val_every_steps={args.steps * 2}", f"train.checkpoint_every_steps={args.every}"]
    own += ["scheduler.warmup_steps=1", "callbacks.progress=null", "trainer.enable_progress_bar=false"]
    own += [
        "callbacks.checkpoint_last.keep_previous=0",
        "logger.csv=null",
        "train.checkpoint_every_minutes=null",
    ]
    if args.device == "cuda":  # a step should not wait for data
        own += ["data/cache=device", "data.num_workers=4"]
    # No validation, also at the end: only steps and saves are measured.
    return [*own, "+trainer.limit_val_batches=0", *args.set]


def measure(args: argparse.Namespace, wait: bool) -> dict[str, float]:
    """Step times with and without a save, checkpoint size and peak memory, of one training run."""
    resolvers.register()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            cfg = compose("train", overrides=options(args, Path(folder)))
        training = build_training(plan_training(cfg))
        times = StepTimes(wait)
        training.trainer.callbacks.append(times)
        assert isinstance(training.trainer.strategy.checkpoint_io, AsyncCheckpointIO)
        with PeakMemory() as memory:
            training.trainer.fit(training.module, training.datamodule)
        state = (Path(folder) / "checkpoints" / "last.ckpt").stat().st_size
    begin = args.every  # the first save is part of the warm-up: it makes what memory is still missing
    steps = list(zip(times.seconds, times.saved, strict=True))[begin:-1]
    plain = [seconds for seconds, saved in steps if not saved]
    saves = [seconds for seconds, saved in steps if saved]
    median = statistics.median(plain)
    return {
        "median_step_ms": median * 1e3,
        "longest_step_ms": max(plain) * 1e3,
        "longest_step_with_a_save_ms": max(saves) * 1e3,
        "save_costs_at_most_ms": (max(saves) - median) * 1e3,
        "num_saves": len(saves),
        "state_gb": state / 1e9,
        "host_memory_gb": (memory.peak - times.rss[0]) / 1e9,
    }


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=1, help="objects a step")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=20, help="steps between two saves")
    parser.add_argument("--ema", action="store_true")
    parser.add_argument(
        "--folder", help="where checkpoints are written; the system's temporary one by default"
    )
    parser.add_argument("--set", nargs="*", default=[], help="further options of train.py")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = {"options": vars(args) | {"json": None}, "torch": torch.__version__}
    for name, wait in (("background", False), ("waited for", True)):
        result[name] = measure(args, wait)
        line = ", ".join(f"{key} {value:.4g}" for key, value in result[name].items())
        sys.stdout.write(f"{name}: {line}\n")
        sys.stdout.flush()
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
