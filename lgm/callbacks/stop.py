"""Ending a run on request without losing a step."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lgm import stopping
from lgm.errors import RunStopped
from lgm.metrics import Late


class StopOnSignal(Callback):
    """SIGTERM (a cluster takes the machine back), SIGHUP, SIGUSR1 or Ctrl-C end the run after the current
    step; `LastCheckpoint` then writes what it goes on from. A second one ends it at once.

    One process that waits for data, or validates, need not finish that first. Several processes stop at the
    same step, one step after any of them was told to. After the last step nothing is left to do but to
    finish it. Before the first step, and where training has ended, signals are the program's
    (`lgm.stopping`).
    """

    def __init__(self) -> None:
        self._handlers = ExitStack()
        self._asked: Late | None = None
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._asked, self._step = None, trainer.global_step
        self._handlers.enter_context(stopping.handled())
        stopping.check()
        stopping.defer()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # in the middle of an accumulation
            return
        self._step = trainer.global_step
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        # Ranks may have different numbers of validation batches: alone they must not ask.
        if trainer.world_size == 1 and not trainer.sanity_checking:
            self._stop_if_asked(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._handlers.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, RunStopped) and self._step_is_known(trainer):
            exception.step = trainer.global_step
        self._handlers.close()

    def _step_is_known(self, trainer: Trainer) -> bool:
        return trainer.training or trainer.validating

    def _stop_if_asked(self, trainer: Trainer) -> None:
        received = stopping.received()
        if trainer.world_size > 1:
            # What was asked a step ago: by now it is known, and reading it waits for no device.
            asked = torch.tensor(received).to(trainer.strategy.root_device, non_blocking=True)
            received = 0 if self._asked is None else int(self._asked.read())
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            self._asked = Late(asked)
        if received and trainer.global_step < trainer.max_steps:
            raise RunStopped(received, trainer.global_step)
