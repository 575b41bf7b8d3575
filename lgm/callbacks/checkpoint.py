"""The checkpoint that a run goes on from."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lgm.callbacks.stop import RunStopped


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

    @property
    def state_key(self) -> str:
        return type(self).__qualname__  # Lightning's names the interval, which may change over a resume

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
            self._save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        return step % self.every_n_steps == 0 or step == trainer.max_steps

    def _save(self, trainer: Trainer) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


def _validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates after the batch that has just ended, by its own count."""
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    return bool(trainer.enable_validation and batches % trainer.val_check_batch == 0)
