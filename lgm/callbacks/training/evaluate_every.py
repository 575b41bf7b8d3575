"""Evaluation within training, by the code and protocol of `evaluate.py`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from lgm import stopping
from lgm.callbacks.order import Stage
from lgm.callbacks.training.ema import EMA
from lgm.callbacks.training.watchdog import beat
from lgm.errors import RunStopped
from lgm.files import write_text
from lgm.losses.perceptual import LPIPS
from lgm.metrics import Measurement, PerceptualNets, Protocol
from lgm.metrics.summary import METRICS, summarise
from lgm.rendering.precision import full_precision
from lgm.reports.columns import table_text

log = logging.getLogger(__name__)


class EvaluateEvery(Callback):
    """Measures the validation objects every so many optimizer steps, and at the end: logs
    `eval/<protocol>/psnr` and its siblings, and writes `<run_dir>/evaluation/step_000123.json`.

    The code is that of `evaluate.py`, and so is the number, on the same objects and a checkpoint of that
    step. Where a run has EMA weights, these are measured, as there.

    every_n_steps: None for never.
    protocol: what is measured how.
    lpips: see `Measure`.
    """

    stage = Stage.EVALUATE

    def __init__(
        self, every_n_steps: int | None, protocol: Protocol, lpips: Callable[..., LPIPS] | None = None
    ) -> None:
        if every_n_steps is not None and (not isinstance(every_n_steps, int) or every_n_steps < 1):
            raise ValueError(
                f"evaluate_every={every_n_steps} must be a whole number of optimizer steps from 1 on, or null"
            )
        self.every_n_steps = every_n_steps
        self.protocol = protocol
        self.make_lpips = lpips
        self._perceptual = PerceptualNets()
        self._step = 0
        self._is_owed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse FSDP, and load the perceptual networks."""
        if self.every_n_steps is None or stage != "fit":
            return
        if isinstance(trainer.strategy, FSDPStrategy):
            raise ValueError(
                "evaluate_every: a sharded network computes with all processes at once, and these have "
                "different numbers of objects; use trainer=ddp8, or evaluate.py on the checkpoints"
            )
        self._perceptual = PerceptualNets.made(self.protocol, self.make_lpips)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out whether the evaluation at the step of a resume is still missing."""
        self._step = trainer.global_step
        # A run that was stopped did not wait for its measurement.
        is_owed = self._is_due(trainer) and not _record(trainer, self._step).exists()
        self._is_owed = trainer.strategy.broadcast(is_owed)  # not all nodes may see the same files

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Make up for a missing evaluation."""
        if self._is_owed:
            self._is_owed = False
            self._evaluate(trainer, pl_module, self._step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate where a step is due."""
        if trainer.global_step == self._step:  # in the middle of an accumulation
            return
        self._step = trainer.global_step
        if self._is_due(trainer):
            self._evaluate(trainer, pl_module, self._step)

    def _is_due(self, trainer: Trainer) -> bool:
        if self.every_n_steps is None or self._step == 0:
            return False
        return self._step % self.every_n_steps == 0 or self._step == trainer.max_steps

    @torch.no_grad()
    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        # Throughput is training's alone.
        pl_module.stopwatch.pause()
        pl_module.eval()
        measurement, net = Measurement(self.protocol, self._perceptual), _measured_net(trainer, pl_module)
        with torch.random.fork_rng(devices=[]):  # a loader draws its seed from the host's numbers
            for batch in trainer.datamodule.val_dataloader(with_geometry=True):
                # Several ranks have different numbers of objects: alone they must not stop.
                if trainer.world_size == 1 and (number := stopping.received()):
                    raise RunStopped(number, step)
                batch = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
                batch = pl_module.eval_preparation(batch)
                with full_precision(pl_module.device.type):  # as evaluate.py
                    prediction = pl_module.predict(batch, net=net)
                measurement.add(prediction)
                beat("evaluate_every", step)
        pl_module.train()
        table, reasons = measurement.table(), measurement.reasons()
        if not table:
            raise ValueError(
                f"nothing to measure under protocol {self.protocol.name!r} in the validation split; "
                "check data.val_split, or evaluate_every=null"
            )
        summary = {"step": step, **summarise(table, self.protocol, reasons)}
        self._publish(trainer, pl_module, summary)
        pl_module.stopwatch.resume()

    def _publish(self, trainer: Trainer, pl_module: LightningModule, summary: dict[str, Any]) -> None:
        step = summary["step"]
        values = {
            f"eval/{self.protocol.name}/{name}": summary[name]
            for name in METRICS
            if summary[name] is not None
        }
        # To the loggers at once: Lightning would drop what comes between two logged steps.
        pl_module.log_dict(values, logger=False, on_step=True, on_epoch=False, batch_size=1)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
        if trainer.is_global_zero:
            text = json.dumps(summary, indent=2, allow_nan=False)
            write_text(_record(trainer, step), text + "\n")
            log.info("step %d · %s", step, table_text(summary))


def _record(trainer: Trainer, step: int) -> Path:
    return Path(trainer.default_root_dir) / "evaluation" / f"step_{step:06d}.json"


def _measured_net(trainer: Trainer, pl_module: LightningModule) -> nn.Module:
    """The network with EMA weights where there are some, else the raw one."""
    averages = [callback.net for callback in trainer.callbacks if isinstance(callback, EMA)]
    return averages[0] if averages else pl_module.net
