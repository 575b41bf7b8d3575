"""The checkpoints of a run: what it goes on from, and its best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lgm.callbacks.stop import RunStopped
from lgm.errors import reading

_ANEW = "start anew: resume=none init_from=<the checkpoint>"


class LastCheckpoint(ModelCheckpoint):
    """Overwrites one file every `every_n_train_steps` optimizer steps, at the end, and where the run is
    stopped: Lightning's own leaves out the steps after the last multiple.

    Where a validation follows the step, it is written after that: it then knows the best score so
    far, and a run that goes on from it repeats no validation. List it after the callback that
    keeps the best.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int, filename: str = "last") -> None:
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            every_n_train_steps=every_n_train_steps,
            save_top_k=1,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.every_n_steps = every_n_train_steps
        self._validation_due = False

    @property
    def state_key(self) -> str:
        return type(self).__qualname__  # Lightning's names the interval, which may change over a resume

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with reading(f"{self.state_key} in the checkpoint", _ANEW):
            self.best_model_path = _own_file(self.dirpath, state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not restored by Lightning: a resumed run would save again in the middle of its first step's
        # accumulation, and the next resume would start from half a step.
        self._last_global_step_saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_due(trainer) and not _validation_follows(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_due(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)  # a run that its time limit or an early stop has ended

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, RunStopped):
            # Whoever goes on from here begins with the validation that was cut off or left out.
            self._validation_due = trainer.validating or _validation_follows(trainer)
            self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict) -> None:
        checkpoint["validation_due"] = self._validation_due

    def _is_due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        return step % self.every_n_steps == 0 or step == trainer.max_steps

    def _save(self, trainer: Trainer) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class BestCheckpoint(ModelCheckpoint):
    """Keeps the one checkpoint with the highest value of `monitor`, looked at after each validation."""

    def __init__(self, dirpath: str, monitor: str, filename: str = "best") -> None:
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
        return f"{type(self).__qualname__}:{self.monitor}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with reading(f"{self.state_key} in the checkpoint", _ANEW):
            own, score = _own_file(self.dirpath, state_dict), state_dict["best_model_score"]
            # Lightning forgets the score where the folder has another name than when it was written: a
            # run that was moved, or mounted elsewhere, would overwrite its best with its next.
            if own and (Path(own).is_file() or state_dict["dirpath"] == self.dirpath) and score is not None:
                score = torch.as_tensor(float(score))
                known = {"best_model_path": own, "kth_best_model_path": own, "best_k_models": {own: score}}
                scores = {"best_model_score": score, "kth_value": score}
                super().load_state_dict({"dirpath": self.dirpath, **known, **scores})


def _own_file(dirpath: str, state_dict: dict[str, Any]) -> str:
    """The file of a restored state in a run's own folder, or nothing.

    Lightning removes the file that it has kept before, wherever its path leads: a path out of a file that
    somebody else made would be removed, and all that lies below it.
    """
    name = Path(state_dict["best_model_path"]).name
    return str(Path(dirpath) / name) if name.endswith(".ckpt") else ""


def _validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates after the batch that has just ended, by its own count."""
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    return bool(trainer.enable_validation and batches % trainer.val_check_batch == 0)
