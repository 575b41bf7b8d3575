"""Throughput and the time of each part of a step, without synchronising with the device."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.types import Batch


class Throughput(Callback):
    """Logs over windows of `every_n_steps` optimizer steps, validation and evaluation left out:

    perf/steps_per_s, perf/objects_per_s: of all ranks together.
    perf/<part>_s: seconds of an optimizer step that went into a part, over all of its micro-batches;
        on the device's clock where there is a device, and of the first rank. They add up to a step:
        data: waiting for a batch, and writing the log before it.
        prepare: copy to the device, augmentation.
        network, render, loss: forward; the loss with what is logged of it.
        backward: of all three, and what ranks tell each other.
        optimizer: clipping included.
        other: callbacks, e.g. averaged weights, checkpoints, images.
    perf/data_share: the data's part of the sum. Near zero where the loader keeps up.

    The module marks the parts on its `stopwatch`; what pauses that is left out of the windows too. The
    device is never synchronised for any of this: it runs a few steps behind the program, and is read that
    much later.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"Throughput needs every_n_steps of at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._window_start = 0.0
        self._start_step = 0
        self._step = 0
        self._objects = 0
        self._left_out_s = 0.0  # before this window

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the stopwatch and the first window."""
        self._step = trainer.global_step
        pl_module.stopwatch.start(pl_module.device)
        self._open_window(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Close a step on the stopwatch, and log where a window ends."""
        stopwatch = pl_module.stopwatch
        stopwatch.mark("optimizer")
        self._objects += len(batch.uids) * trainer.world_size
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            stopwatch.end_step()
        if self._step - self._start_step >= self.every_n_steps:
            self._log(trainer, pl_module)
            self._open_window(trainer, pl_module)
        # Until the module's own hook, the last: callbacks that draw images run the network too.
        stopwatch.pause()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the stopwatch."""
        pl_module.stopwatch.stop()

    def _open_window(self, trainer: Trainer, module: LightningModule) -> None:
        self._window_start, self._start_step = time.monotonic(), trainer.global_step
        self._left_out_s, self._objects = module.stopwatch.left_out_s, 0

    def _log(self, trainer: Trainer, module: LightningModule) -> None:
        seconds, left_out_s = module.stopwatch.read(), module.stopwatch.left_out_s - self._left_out_s
        elapsed = max(time.monotonic() - self._window_start - left_out_s, 1e-9)
        values = {
            "perf/steps_per_s": (trainer.global_step - self._start_step) / elapsed,
            "perf/objects_per_s": self._objects / elapsed,
            **{f"perf/{part}_s": value for part, value in seconds.items()},
        }
        if seconds:
            values["perf/data_share"] = seconds.get("data", 0.0) / max(sum(seconds.values()), 1e-9)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
