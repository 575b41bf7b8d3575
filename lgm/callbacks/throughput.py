"""Where the time goes, without waiting for the device at each step."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.types import Batch


class Throughput(Callback):
    """Logs over windows of `every_n_steps` optimizer steps:

    perf/steps_per_s, perf/objects_per_s: of all ranks together, validation left out.
    perf/data_wait_s: from the end of one batch to the start of the next, its copy to the device
        included; mean over the window's batches. Near zero where the loader keeps up.

    The device is never synchronised for it: it runs a few steps behind the program, which does not
    matter over a window.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"Throughput needs every_n_steps of at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._batch_ended: float | None = None
        self._window_start = 0.0
        self._start_step = 0
        self._objects = 0
        self._waits: list[float] = []
        self._paused_at: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open_window(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._batch_ended is not None:
            self._waits.append(time.monotonic() - self._batch_ended)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._objects += len(batch.uids) * trainer.world_size
        if trainer.global_step - self._start_step >= self.every_n_steps:
            self._log(trainer)
            self._open_window(trainer)
        self._batch_ended = time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused_at = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._paused_at is not None:
            self._window_start += time.monotonic() - self._paused_at
        self._paused_at = self._batch_ended = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict) -> None:
        # Writing a checkpoint falls between two batches and is no wait for data.
        self._batch_ended = None

    def _open_window(self, trainer: Trainer) -> None:
        self._window_start, self._start_step = time.monotonic(), trainer.global_step
        self._objects, self._waits = 0, []

    def _log(self, trainer: Trainer) -> None:
        elapsed = max(time.monotonic() - self._window_start, 1e-9)
        values = {
            "perf/steps_per_s": (trainer.global_step - self._start_step) / elapsed,
            "perf/objects_per_s": self._objects / elapsed,
        }
        if self._waits:
            values["perf/data_wait_s"] = sum(self._waits) / len(self._waits)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
