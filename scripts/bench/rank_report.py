"""A callback of train.py that measures its own rank.

`+callbacks.rank_report._target_=rank_report.RankReport` adds it, where this folder is in PYTHONPATH. Each
rank writes `<folder>/rank_<rank>.json` when training starts, after its first step, and when it has measured;
ranks exchange nothing for it.
"""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.parallel import DistributedDataParallel

from lgm.files import write_text

SYNCED, ALONE = "synced_ms", "alone_ms"


class RankReport(Callback):
    """Milliseconds per optimizer step, over blocks of steps, and the peak memory of the process's device.

    After `warm_up` steps, blocks of `steps` follow: ordinary ones (`synced_ms`), and under DDP in turn with
    blocks whose gradients are not reduced (`alone_ms`): the difference is the time in all-reduce that the
    backward pass does not hide. The device is synchronised between blocks and never within one. Weights of
    the ranks part in a block without reduction, so the run is good for nothing else.

    repeats: blocks of each kind; 0 measures nothing. in_turn: whether there are blocks without reduction. The
    report has `pid`, `first_step` (steps done before this process began), `has_stepped`, the two lists, and
    `peak_gib`: of the allocator on a GPU, of the process's resident memory on a CPU.
    """

    stage = 100  # after all others: their time belongs to the step

    def __init__(
        self, folder: str, warm_up: int = 10, steps: int = 20, repeats: int = 2, in_turn: bool = True
    ) -> None:
        self.folder, self.warm_up, self.steps, self.in_turn = Path(folder), warm_up, steps, in_turn
        self.repeats = repeats
        self._kinds: list[str] = []  # of the blocks
        self._report: dict[str, Any] = {}
        self._done = 0  # optimizer steps of this process
        self._begun_at = 0.0  # of the block

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plan the blocks, and report the process."""
        is_ddp = isinstance(trainer.strategy.model, DistributedDataParallel)
        self._kinds = [SYNCED, ALONE] * self.repeats if is_ddp and self.in_turn else [SYNCED] * self.repeats
        self._report = {"rank": trainer.global_rank, "pid": os.getpid(), "first_step": trainer.global_step}
        self._report |= {"has_stepped": False, SYNCED: [], ALONE: []}
        self._write()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Count steps; where a block ends, measure it and begin the next."""
        done = trainer.global_step - self._report["first_step"]
        if done == self._done:  # a micro-batch before the last one of its step
            return
        self._done = done
        if done == 1:
            self._report["has_stepped"] = True
            self._write()
        block, within = divmod(done - self.warm_up, self.steps)
        if self._kinds and not within and 0 <= block <= len(self._kinds):
            self._end_block(trainer, pl_module.device, block)

    def _end_block(self, trainer: Trainer, device: torch.device, next_block: int) -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize()
        if next_block:
            elapsed_ms = 1e3 * (time.perf_counter() - self._begun_at)
            self._report[self._kinds[next_block - 1]].append(elapsed_ms / self.steps)
        if next_block == len(self._kinds):
            self._report["peak_gib"] = _peak_gib(device)
            self._write()
        elif ALONE in self._kinds:
            # What DDP.no_sync sets for one pass.
            trainer.strategy.model.require_backward_grad_sync = self._kinds[next_block] == SYNCED
        self._begun_at = time.perf_counter()

    def _write(self) -> None:
        write_text(self.folder / f"rank_{self._report['rank']}.json", json.dumps(self._report))


def _peak_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
