"""The LightningModule: training, validation and test of a network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from lgm.errors import reading, shown
from lgm.gaussians import Gaussians
from lgm.losses import CompositeLoss
from lgm.metrics import psnr
from lgm.metrics.validation import validation_psnr
from lgm.models.checkpoint import SCHEMA_VERSION
from lgm.preparation.prepare import Preparation
from lgm.refinement import Refinement
from lgm.rendering.base import Renderer
from lgm.rendering.drawing import draw
from lgm.rendering.precision import full_precision
from lgm.training.collapse import Collapse, is_collapsed
from lgm.training.resume import check_counts, option_values, realign_loops, restore_options
from lgm.training.skipped_steps import WINDOW, SkippedSteps
from lgm.training.step_log import StepLog
from lgm.training.stopwatch import Stopwatch
from lgm.types import Batch, Prediction

log = logging.getLogger(__name__)

_SHOWN = 5
_COLLAPSED = "collapsed"  # in the step's log, and no column of its own


class LGMModule(L.LightningModule):
    """Images to Gaussians to images to loss.

    net: images [B, V, 3, H, W], cameras and alphas to Gaussians; an `lgm.models.Network`.
    renderer: draws all target views of all scenes in one call.
    preparation: what happens to a batch on the device first; eval_preparation: the same in validation and
        test, None where that is no different.
    optimizer: makes an optimizer of the network; scheduler: makes a schedule of that optimizer.
    eval_views_per_call: in validation and test, images that the renderer draws at once; None draws
        a batch in one call, as in training.
    clip_grad_norm: gradients are scaled down to this global norm; None leaves them.
    config: plain containers, stored in every checkpoint.
    skipped_steps: what becomes of steps whose loss or gradient is not finite.
    refinement: what is done in test to the Gaussians before they are drawn.
    """

    def __init__(
        self,
        net: nn.Module,
        renderer: Renderer,
        preparation: Preparation,
        loss: CompositeLoss | None = None,
        optimizer: Callable[[nn.Module], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], Any] | None = None,
        clip_grad_norm: float | None = 1.0,
        eval_views_per_call: int | None = None,
        config: dict[str, Any] | None = None,
        eval_preparation: Preparation | None = None,
        skipped_steps: SkippedSteps | None = None,
        refinement: Refinement | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.renderer = renderer
        self.preparation = preparation
        self.eval_preparation = eval_preparation or preparation
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.clip_grad_norm = clip_grad_norm
        self.eval_views_per_call = eval_views_per_call
        self.refinement = refinement or Refinement()
        self.config = config or {}
        # NaN stays NaN: by default torchmetrics leaves it out of the mean.
        self.val_psnr = MeanMetric(nan_strategy=float("nan"))
        self.val_loss = MeanMetric(nan_strategy=float("nan"))
        self.step_log = StepLog()
        self.stopwatch = Stopwatch()  # stands still until somebody starts it
        self._validated: list[tuple[tuple[str, ...], Tensor]] = []  # uids, and PSNR of each object [B]
        self.skipped_steps = skipped_steps or SkippedSteps()
        self.collapse = Collapse()
        self._options: list[dict[str, Any]] = []
        self._schedule: dict[str, Any] | None = None

    def forward(self, batch: Batch) -> Gaussians:
        """Gaussians of a prepared batch."""
        return self.net(batch.input.images, batch.input.cameras, batch.input.alphas)

    def predict(self, batch: Batch, net: nn.Module | None = None, refined: bool = False) -> Prediction:
        """Gaussians of a prepared batch and their images from its target views.

        net: another network than this module's own, e.g. an untrained one to compare with.
        refined: whether the Gaussians are fitted to the inputs first, as `refinement` says.
        """
        network = self.net if net is None else net
        gaussians = network(batch.input.images, batch.input.cameras, batch.input.alphas)
        self.stopwatch.mark("network")
        if refined and self.refinement.steps:
            gaussians = self.refinement(
                gaussians, batch.input, batch.input_background, self.renderer, self.eval_views_per_call
            )
            self.stopwatch.mark("refine")
        render = draw(
            self.renderer,
            gaussians,
            batch.target,
            batch.background,
            None if self.training else self.eval_views_per_call,
        )
        self.stopwatch.mark("render")
        return Prediction(batch, gaussians, render)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        # Loaders pin their batches; Lightning's own copy would first wait for all that is under way.
        return batch.to(device, non_blocking=True)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        self.stopwatch.mark("data")
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.trainer.training:
            batch = self.preparation(batch, training=True, step=self.global_step)
        else:
            batch = self.eval_preparation(batch)
        self.stopwatch.mark("prepare")
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        prediction = self.predict(batch)
        total, terms = self.loss(prediction, self.global_step)
        if self._is_logged_step():
            self._collect(prediction, total, terms)
        total = self.skipped_steps.checked(total, batch, self.global_step)
        self.stopwatch.mark("loss")
        return total

    def on_after_backward(self) -> None:
        self.stopwatch.mark("backward")

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step, interval, skipped = self.global_step, self.trainer.log_every_n_steps, self.skipped_steps
        is_due = step > skipped.reported and (step % interval == 0 or step % (WINDOW // 2) == 0)
        if is_due or skipped.fault is not None:
            self._report()
        self.stopwatch.resume("other")  # after all callbacks

    def on_validation_end(self) -> None:
        self.stopwatch.resume()

    def _is_logged_step(self) -> bool:
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0

    @torch.no_grad()
    def _collect(self, prediction: Prediction, total: Tensor, terms: dict[str, Tensor]) -> None:
        gaussians, render = prediction.gaussians, prediction.render
        self.step_log.add(
            {
                "train/loss": total,
                **{f"train/loss/{name}": value for name, value in terms.items()},
                "train/psnr": psnr(render.images, prediction.batch.target.images).mean(),
                # A network that collapses shows it here first: all transparent, or all huge.
                "train/alpha": render.alphas.mean(),
                "train/opacity": gaussians.opacities.mean(),
                "train/scale": gaussians.scales.mean(),
                _COLLAPSED: is_collapsed(render.alphas, prediction.batch.target.alphas),
            }
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> Prediction:
        # In float32 whatever training computes in: evaluate.py gives a checkpoint the same number.
        with full_precision(self.device.type):
            prediction = self.predict(batch)
            values = validation_psnr(prediction)
            total, _ = self.loss(prediction, self.global_step)
        self.val_psnr.update(values)
        self._validated.append((batch.uids, values.detach().mean(dim=1)))
        self.val_loss.update(total, weight=len(batch.uids))
        return prediction

    def on_validation_epoch_end(self) -> None:
        self._say_non_finite()
        self.log("step", float(self.global_step))
        self.log("val/psnr", self.val_psnr, prog_bar=True)
        self.log("val/loss", self.val_loss)

    def _say_non_finite(self) -> None:
        """Name the objects of this rank whose images came out as NaN or infinity. Asked once a validation:
        at each batch, the program would wait for the device."""
        validated, self._validated = self._validated, []
        uids = [uid for names, _ in validated for uid in names]
        if not uids:
            return
        is_finite = torch.cat([values for _, values in validated]).isfinite().tolist()
        bad = [shown(uid, 60) for uid, finite in zip(uids, is_finite, strict=True) if not finite]
        if bad:
            more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
            log.warning(
                "step %d: val/psnr is not finite (NaN or infinity) for %d of %d objects: %s%s",
                self.global_step,
                len(bad),
                len(uids),
                ", ".join(bad[:_SHOWN]),
                more,
            )

    def test_step(self, batch: Batch, batch_idx: int) -> Prediction:
        return self.predict(batch, refined=True)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.make_optimizer(self.net)
        scheduler = None if self.make_scheduler is None else self.make_scheduler(optimizer)
        self._options = option_values(optimizer)
        if scheduler is None:
            return {"optimizer": optimizer}
        self._schedule = scheduler.state_dict()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        self.skipped_steps.start(self.device, self.global_step)
        self._restore_options()

    def roll_back(self, checkpoint: dict[str, Any]) -> None:
        """Weights and moments of a checkpoint of this run; steps, schedule and data go on."""
        self.load_state_dict(checkpoint["state_dict"])
        self.optimizers().optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        self._restore_options()

    def _restore_options(self) -> None:
        optimizer, schedule = self.optimizers().optimizer, self.lr_schedulers()
        restore_options(optimizer, self._options, schedule, self._schedule, self.global_step)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        scaler = self._scaler()
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            # A fused optimizer would divide by the scale inside its step, after the clipping.
            scaler.unscale_(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = float("inf") if self.clip_grad_norm is None else self.clip_grad_norm
        # FSDP shards gradients: only its own root knows their norm.
        sharded = getattr(self.trainer.model, "clip_grad_norm_", None)
        norm = sharded(limit) if sharded else nn.utils.clip_grad_norm_(parameters, limit)
        self.skipped_steps.judge(optimizer, norm, self.global_step, has_scaler=scaler is not None)
        if self._is_logged_step():
            # Lightning would count from 0; a row says how many steps were taken.
            self.log("step", float(self.global_step + 1), batch_size=1)
            self.log("train/lr", optimizer.param_groups[0]["lr"], batch_size=1)
            self.log("train/grad_norm", norm, batch_size=1)
            means = self.step_log.means()
            self.collapse.note(means.pop(_COLLAPSED, None), means.get("train/alpha"))
            self.log_dict(means, batch_size=1)
            self.step_log.clear()

    def _report(self) -> None:
        """Read at the log interval what the device has noted. Raises ValueError on all ranks where too many
        steps were skipped."""
        if (fault := self._report_skipped()) is not None:
            raise ValueError(fault)
        if (warning := self.collapse.warning(self.global_step)) is not None and self.global_rank == 0:
            log.warning(warning)

    def _report_skipped(self) -> str | None:
        scaler = self._scaler()
        scale = None if scaler is None else scaler.get_scale()
        folder = Path(self.trainer.default_root_dir)
        return self.skipped_steps.report(self.global_step, folder, self.global_rank, scale)

    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def on_train_end(self) -> None:
        self._report()

    def on_validation_start(self) -> None:
        self.stopwatch.pause()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        with reading("the loops of the checkpoint", "start anew: resume=none init_from=<the checkpoint>"):
            check_counts(checkpoint["loops"]["fit_loop"], self.trainer.fit_loop.state_dict(), "fit_loop")
            realign_loops(checkpoint, self.trainer.accumulate_grad_batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._report_skipped()  # a stop, or a kill after it, must not lose what is known so far
        checkpoint["schema_version"] = SCHEMA_VERSION
        checkpoint["config"] = self.config
