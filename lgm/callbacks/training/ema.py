"""EMA weights: an exponential moving average of the raw weights, saved and measured beside them.

Why not Lightning's `EMAWeightAveraging`: tried with Lightning 2.6. A run resumed from a checkpoint of its
middle has the same weights; but when training ends, it copies the EMA weights over the raw ones, so that a
checkpoint written then has lost these and a longer run cannot go on exactly. It also copies the whole
module, loss networks included; swaps weights during validation, so that the raw ones are not measured;
updates after skipped steps; and stores the EMA weights under `state_dict`, where other programs expect the
raw ones.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torchmetrics import MeanMetric

from lgm.metrics.validation import validation_psnr
from lgm.rendering.precision import full_precision
from lgm.types import Prediction

KEY = "ema"  # in a checkpoint: {"state_dict": …, "num_updates": …}


class EMA(Callback):
    """Updates the EMA weights, `ema = decay * ema + (1 - decay) * weights`, after every optimizer step.

    Validation logs `val/psnr_ema` beside `val/psnr`; a checkpoint holds both, and evaluation takes the
    EMA weights where there are some.

    decay: its final value; in the beginning EMA weights follow faster, (1 + n) / (10 + n) after n
        updates, so that it forgets the first weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay={decay} must lie between 0 and 1")
        self.decay = decay
        self.num_updates = torch.zeros(())  # on the device: a skipped step is none, and only it knows
        self.net: nn.Module | None = None
        self._step = 0
        self._psnr = MeanMetric(nan_strategy=float("nan"))
        self._loaded: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse FSDP, whose ranks hold shards of the weights."""
        if stage == "fit" and isinstance(trainer.strategy, FSDPStrategy):
            raise ValueError(
                "callbacks.ema averages whole weights and trainer=fsdp shards them; use callbacks=train, or "
                "trainer=ddp"
            )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict) -> None:
        """Keep the checkpoint's EMA weights until the network of `on_fit_start` exists."""
        self._loaded = checkpoint.get(KEY)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the network for the EMA weights, and load those of a checkpoint."""
        self.net = copy.deepcopy(pl_module.net).requires_grad_(False).eval().to(pl_module.device)
        self._psnr, self.num_updates = self._psnr.to(pl_module.device), self.num_updates.to(pl_module.device)
        if self._loaded is not None:
            self.restore(self._loaded)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the EMA weights of a checkpoint: its `ema`."""
        self.net.load_state_dict(state["state_dict"])
        self.num_updates.fill_(state["num_updates"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the raw weights, which by now are restored, where no EMA weights were loaded."""
        self._step = trainer.global_step
        if self._loaded is None:  # also where a run without EMA weights is resumed with them
            self.net.load_state_dict(pl_module.net.state_dict())
        self._loaded = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow an optimizer step."""
        self.follow(trainer, pl_module)

    @torch.no_grad()
    def follow(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Update the EMA weights once per optimizer step; not in the middle of an accumulation, and not
        where the optimizer's was skipped."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        skipped = pl_module.skipped_steps.last
        took = torch.ones_like(self.num_updates) if skipped is None else 1 - skipped
        # 1 - decay of (1 + n) / (10 + n), written so that float32 does not round it.
        weight = took * (9 / (10 + self.num_updates)).clamp(min=1 - self.decay)
        self.num_updates += took
        weights = list(self.net.parameters())
        # One fused kernel for all tensors; buffers of the network are constants.
        torch._foreach_lerp_(weights, list(pl_module.net.parameters()), [weight] * len(weights))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """PSNR of the same batch with the EMA weights."""
        with full_precision(pl_module.device.type):  # as `LGMModule.validation_step`
            prediction = pl_module.predict(outputs.batch, net=self.net)
        self._psnr.update(validation_psnr(prediction))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `val/psnr_ema` over all ranks."""
        pl_module.log("val/psnr_ema", self._psnr.compute(), sync_dist=False)
        self._psnr.reset()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict) -> None:
        """Save the EMA weights and their number of updates beside the raw weights."""
        checkpoint[KEY] = {"state_dict": self.net.state_dict(), "num_updates": int(self.num_updates)}
