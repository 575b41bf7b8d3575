"""The best checkpoint of a run by a validation metric, with the number of objects it was chosen on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lgm.callbacks.order import Stage
from lgm.callbacks.training.checkpoint import ANEW, own_file
from lgm.errors import reading
from lgm.types import Prediction

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the one checkpoint with the highest value of `monitor` that is finite, looked at after each
    validation.

    Its state in a checkpoint has `num_objects`, how many validation objects the value is the mean of, and so
    has a log line. After a resume that validates on another number of objects the best is chosen anew.
    """

    stage = Stage.BEST_CHECKPOINT

    def __init__(self, dirpath: str, monitor: str, filename: str = "best") -> None:
        self.num_objects: int | None = None  # of the best score; None in checkpoints that did not record it
        self._seen = 0  # on this rank, in the validation under way
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=monitor,
            mode="max",
            save_top_k=1,
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        """Its key in a checkpoint's callbacks, with the metric."""
        return f"{type(self).__qualname__}:{self.monitor}"

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the objects from 0."""
        super().on_validation_start(trainer, pl_module)
        self._seen = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the objects of a batch."""
        self._seen += len(batch.uids)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where the score is the best so far, and log over how many objects it was."""
        count = torch.tensor(float(self._seen), device=pl_module.device)
        num_objects = int(trainer.strategy.reduce(count, reduce_op="sum"))
        if self.num_objects not in (None, num_objects) and self.best_k_models:
            log.warning(
                "best.ckpt was the best over num_objects=%d; validation now has num_objects=%d: it is "
                "chosen anew",
                self.num_objects,
                num_objects,
            )
            self.best_k_models.clear()
            self.kth_best_model_path, self.best_model_score = "", None
        before, self.num_objects = self.best_model_score, num_objects
        super().on_validation_end(trainer, pl_module)
        if self.best_model_score is not before and trainer.is_global_zero:
            log.info(
                "best.ckpt: step=%d %s=%.4f num_objects=%d (data.max_val_objects=%s)",
                trainer.global_step,
                self.monitor,
                float(self.best_model_score),
                num_objects,
                _option(getattr(getattr(trainer, "datamodule", None), "max_val_objects", None)),
            )

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, and over how many objects the score was measured."""
        return {**super().state_dict(), "num_objects": self.num_objects}

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the score is finite and the best so far."""
        # Lightning takes NaN for the lowest score, which is the best where there is no other.
        if current is not None and not trainer.strategy.reduce_boolean_decision(bool(current.isfinite())):
            log.warning(
                "step %d: %s is %s: best.ckpt is not replaced",
                trainer.global_step,
                self.monitor,
                float(current),
            )
            return False
        return super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best score and its file, where that is in this run's folder."""
        with reading(f"{self.state_key} in the checkpoint", ANEW):
            path, score = own_file(self.dirpath, state_dict), state_dict["best_model_score"]
            # Lightning forgets the score where the folder has another name than when it was written: a
            # run that was moved, or mounted elsewhere, would overwrite its best with its next.
            if path and (Path(path).is_file() or state_dict["dirpath"] == self.dirpath) and score is not None:
                score = torch.as_tensor(float(score))
                known = {"best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: score}}
                scores = {"best_model_score": score, "kth_value": score}
                super().load_state_dict({"dirpath": self.dirpath, **known, **scores})
                number = state_dict.get("num_objects")
                self.num_objects = number if type(number) is int else None


def _option(value: Any) -> Any:
    """A value as it is typed."""
    return "null" if value is None else value
