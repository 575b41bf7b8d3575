"""Ending a run on request without losing a step."""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.errors import RunStopped
from lgm.metrics import Late

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopOnSignal(Callback):
    """SIGTERM (a cluster takes the machine back) or Ctrl-C end the run after the current step;
    `LastCheckpoint` then writes what it goes on from. A second one ends it at once.

    Several processes stop at the same step, one step after any of them was told to. After the last step
    nothing is left to do but to finish it.
    """

    def __init__(self) -> None:
        self._received = 0
        self._asked: Late | None = None
        self._handlers: dict[int, Any] = {}
        self._pid = 0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # In place of Lightning's, whose handler waits for other ranks inside of a signal, and whose
        # loop asks them before each batch, which makes it wait for the device.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        self._received, self._asked = 0, None
        self._pid, self._step = os.getpid(), trainer.global_step
        self._handlers = {number: signal.signal(number, self._receive) for number in _SIGNALS}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # in the middle of an accumulation
            return
        self._step = trainer.global_step
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        # Ranks may have different numbers of validation batches: alone they must not ask.
        if trainer.world_size == 1:
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a loader's worker, forked with this handler
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return  # Ctrl-C reaches the whole group; the parent still needs its batches
        if self._received:
            self._restore()
            raise KeyboardInterrupt
        self._received = number
        log.warning("%s: stopping after this step; once more stops at once", signal.Signals(number).name)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        received = self._received
        if trainer.world_size > 1:
            # What was asked a step ago: by now it is known, and reading it waits for no device.
            received = 0 if self._asked is None else int(self._asked.read())
            asked = torch.tensor(self._received).to(trainer.strategy.root_device, non_blocking=True)
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            self._asked = Late(asked)
        if received and trainer.global_step < trainer.max_steps:
            raise RunStopped(received, trainer.global_step)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
