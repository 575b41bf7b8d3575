"""Training steps that are fed by train.py's own loader, and train.py itself on the same data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from infer import synchronize  # its neighbour
from omegaconf import DictConfig
from training_runs import NO_CHECKPOINTS, RankFiles, Run, Setup, column  # another

from lgm.cli.build import build_datamodule
from lgm.training.module import LGMModule

WARM_UP = 5  # steps
# What makes a step of train.py one of each way.
OPTIONS_OF_WAYS = {
    "plain": ("speed=eager",),
    "fused": ("speed=fast",),
    "graphs": ("speed=fast", "train.graph=true"),
    "compiled": ("speed=fast", "train.compile=true"),
}


def with_loader(
    cfg: DictConfig,
    module: LGMModule,
    step: Callable[..., None],
    device: torch.device,
    steps: int,
) -> dict[str, float]:
    """Objects per second from train.py's own loader and preparation, and the fraction of waiting for data."""
    datamodule = build_datamodule(cfg, accumulation=1)
    datamodule.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=device), global_rank=0, world_size=1, global_step=0
    )
    loader, waited = datamodule.train_dataloader(), 0.0
    batches = iter(loader)
    # Workers have started, kernels are compiled, and what workers had ready until then is used up.
    warm_up = max(WARM_UP, loader.num_workers * (loader.prefetch_factor or 0))
    for number in range(steps + warm_up):
        if number == warm_up:
            synchronize(device)
            start, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        batch = batch.to(device, non_blocking=True)
        step(given=module.preparation(batch, training=True, step=number))
    synchronize(device)
    elapsed = time.perf_counter() - start
    return {"objects_per_s": steps * cfg.batch / elapsed, "data_fraction": waited / elapsed}


def of_train_py(
    options: Sequence[str], way: str, cfg: DictConfig, device: torch.device, steps: int, folder: Path
) -> dict[str, float]:
    """Objects per second of train.py itself, a process of its own, over so many steps after its warm-up.

    options: of train.py, which `cfg` was composed from; folder: where it writes.
    """
    setup = Setup(device.type, (*options, *OPTIONS_OF_WAYS[way]), cfg.batch, folder, math.inf)
    run_dir, ranks = folder / f"train_py_{way}", RankFiles(folder / f"train_py_{way}_rank")
    warm_up = max(WARM_UP, 2 * cfg.data.num_workers + 2)
    measured = ranks.options(warm_up=warm_up, steps=steps, repeats=1, in_turn=False)
    # One window of its own log behind the warm-up, so that `data_share` is of the same steps.
    more = [*NO_CHECKPOINTS, *measured, f"train.log_every_steps={math.gcd(warm_up, steps)}"]
    with Run(setup.command(run_dir.name, 1, warm_up + steps, *more), run_dir, math.inf) as run:
        run.succeed()
    ranks.read(1)
    (step_ms,) = ranks.ranks[0]["synced_ms"]
    shares = [share for step, share in column(run_dir, "perf/data_share").items() if step > warm_up]
    return {"objects_per_s": 1e3 * cfg.batch / step_ms, "data_fraction": sum(shares) / len(shares)}
