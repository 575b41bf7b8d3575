"""Running train.py and evaluate.py, in this process or as a person would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from lgm.cli.evaluate import evaluate
from lgm.cli.train import train
from lgm.training.module import LGMModule
from tests.clock import GIVE_UP_S
from tests.forked import run_program

ROOT = Path(__file__).parents[2]
MICRO = [
    "model=nano",
    "recipe=published",
    "model.net.down_channels=[32,32,32]",
    "model.net.down_attention=[false,false,true]",
    "model.net.up_channels=[32,32]",
    "model.net.up_attention=[true,false]",
    "model.net.input_size=16",
    "resolution.target_size=16",
    "trainer=cpu",
    "data.num_workers=0",
    "callbacks.progress=null",
    "trainer.enable_progress_bar=false",
]
SHORT = ["debug=short", "train.global_batch_size=2", "data.micro_batch_size=2", "data/views=canonical"]


def composed(config: str, *overrides: object):
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(config, overrides=[str(o) for o in overrides])


def run_train(dataset: Path, run_dir: Path, *overrides: str) -> float | None:
    cfg = composed("train", *MICRO, *SHORT, f"data.path={dataset}", f"run_dir={run_dir}", *overrides)
    return train(cfg)


def run_evaluate(dataset: Path, run_dir: Path, ckpt: Path, *overrides: str) -> float | None:
    cfg = composed(
        "evaluate",
        *(o for o in MICRO if not o.startswith(("model", "recipe", "resolution"))),
        "data.micro_batch_size=2",
        f"data.path={dataset}",
        f"run_dir={run_dir}",
        f"ckpt={ckpt}",
        *overrides,
    )
    return evaluate(cfg)


def run_script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """As a person types it; output captured."""
    return run_program(ROOT / name, *arguments, cwd=ROOT)


def start_script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The same from a Python that has loaded nothing yet, which takes seconds: where what is loaded counts,
    and where Lightning starts more processes of the same command."""
    return subprocess.run(
        [sys.executable, str(ROOT / name), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * GIVE_UP_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def signals_at(monkeypatch, number, global_step, micro_batch=0):
    """From now on the process gets that signal once, in that micro-batch of that step."""
    original, seen = LGMModule.training_step, []

    def training_step(self, batch, batch_idx):
        if self.global_step == global_step:
            seen.append(batch_idx)
            if len(seen) == micro_batch + 1:
                os.kill(os.getpid(), number)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(LGMModule, "training_step", training_step)
