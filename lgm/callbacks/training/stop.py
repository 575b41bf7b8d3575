"""Graceful stop: ending a run on a signal without losing a step."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lgm import stopping
from lgm.callbacks.order import Stage
from lgm.callbacks.training.watchdog import beat
from lgm.errors import RunStopped
from lgm.metrics import Late


class StopOnSignal(Callback):
    """SIGTERM (a cluster takes the machine back), SIGHUP, SIGUSR1 or Ctrl-C end the run after the current
    step; `LastCheckpoint` then writes what it goes on from. A second one ends it at once.

    One process that waits for data need not finish that first, and no validation need be finished. Several
    processes stop at the same step or batch of a validation, one after any of them was told to. After the
    last step nothing is left to do but to finish it. Before the first step, and where training has ended,
    signals are the program's (`lgm.stopping`).
    """

    stage = Stage.STOP

    def __init__(self) -> None:
        self._handlers = ExitStack()
        self._asked: Late | None = None
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add the callback that asks during validation."""
        if not any(isinstance(callback, _InValidation) for callback in trainer.callbacks):
            trainer.callbacks = [_InValidation(self), *trainer.callbacks]  # the loop that calls this goes on

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals until training ends."""
        self._asked, self._step = None, trainer.global_step
        self._handlers.enter_context(stopping.handled())
        stopping.check()
        stopping.defer()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after a whole optimizer step where a signal has come."""
        if trainer.global_step == self._step:  # in the middle of an accumulation
            return
        self._step = trainer.global_step
        self.stop_if_asked(trainer)

    def forget(self) -> None:
        """Drop the pending reduction: a new round begins on all ranks."""
        self._asked = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._handlers.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Note the step of a stop, and give the signals back."""
        if isinstance(exception, RunStopped) and self._step_is_known(trainer):
            exception.step = trainer.global_step
        self._handlers.close()

    def _step_is_known(self, trainer: Trainer) -> bool:
        return trainer.training or trainer.validating

    def stop_if_asked(self, trainer: Trainer, is_done: bool = False) -> bool:
        """Raise where any rank was told to stop; returns whether all ranks are done with their validation.

        All ranks have to call it together."""
        received, all_done = stopping.received(), is_done
        if is_done:
            beat("a validation that other ranks have not finished")
        if trainer.world_size > 1:
            # What was asked the time before: by now it is known, and reading it waits for no device.
            asked = torch.tensor([received, not is_done]).to(trainer.strategy.root_device, non_blocking=True)
            received, busy = (0, 1) if self._asked is None else self._asked.tensor().tolist()
            all_done = not busy
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            self._asked = Late(asked)
        if received and trainer.global_step < trainer.max_steps:
            raise RunStopped(received, trainer.global_step)
        return all_done


class _InValidation(Callback):
    """Asks after each batch of a validation. It comes before all other callbacks, whose measures wait for
    all ranks at the end of one: ranks have different numbers of batches, and those that are done answer until
    all are."""

    def __init__(self, stop: StopOnSignal) -> None:
        self._stop = stop

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop.forget()

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if not trainer.sanity_checking:
            self._stop.stop_if_asked(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        while trainer.world_size > 1 and not self._stop.stop_if_asked(trainer, is_done=True):
            pass
        self._stop.forget()
