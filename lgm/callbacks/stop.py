"""Ending a run on request without losing a step."""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RunStopped(Exception):
    """The run was asked to end, and stands between two optimizer steps on all ranks."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.signal_number = signal_number


class StopOnSignal(Callback):
    """SIGTERM (a cluster takes the machine back) or Ctrl-C end the run after the current step;
    `LastCheckpoint` then writes what it goes on from. A second one ends it at once.

    ask_every_n_steps: how often several processes ask each other whether one was told to stop, which
        makes them wait for the device; a single process looks at each step.
    """

    def __init__(self, ask_every_n_steps: int = 10) -> None:
        if ask_every_n_steps < 1:
            raise ValueError(f"StopOnSignal needs ask_every_n_steps of at least 1, got {ask_every_n_steps}")
        self.ask_every_n_steps = ask_every_n_steps
        self._received = 0
        self._handlers: dict[int, Any] = {}
        self._pid = 0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # In place of Lightning's, whose handler waits for other ranks inside of a signal.
        self._received, self._pid, self._step = 0, os.getpid(), trainer.global_step
        self._handlers = {number: signal.signal(number, self._receive) for number in _SIGNALS}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._step:  # in the middle of an accumulation
            return
        self._step = step
        if trainer.world_size == 1 or step % self.ask_every_n_steps == 0:
            self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        # Ranks may have different numbers of validation batches: alone they must not ask.
        if trainer.world_size == 1 and not trainer.sanity_checking:
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
            asked = torch.tensor(received, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            received = int(asked)
        if received:
            raise RunStopped(received, trainer.global_step)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
