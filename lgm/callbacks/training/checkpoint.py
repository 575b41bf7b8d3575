"""Checkpoints of a run and their retention: the last, previous and periodic ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from lgm.callbacks.order import Stage
from lgm.callbacks.training.background import (
    SaveTimer,
    background_writer,
    is_sharding,
    saving_shards,
    wait_for_writes,
)
from lgm.callbacks.training.ema import EMA
from lgm.errors import RunStopped, first_line, reading
from lgm.lightning_internals import batches_done, dumped_checkpoint

log = logging.getLogger(__name__)

_SHARDED = ".sharded"
ANEW = "start anew: resume=none init_from=<the checkpoint>"


class LastCheckpoint(ModelCheckpoint):
    """Overwrites one file every `every_n_train_steps` optimizer steps, `every_n_minutes` after the last time,
    at the end, and where the run is stopped: Lightning's own leaves out the steps after the last multiple.

    Where a validation follows the step, it is written after that: it then knows the best score so
    far, and a run that goes on from it repeats no validation.

    every_n_minutes: by the first rank's clock; None counts steps alone. One that is due while the one before
        is being written waits for that.
    keep_previous: how many of those before are kept, as previous.ckpt, previous_2.ckpt, …
    keep_every_n_steps: keeps one at or after each multiple for ever, as step_00001000.ckpt; None keeps none.

    With trainer=fsdp each rank writes its own shard instead, to last.sharded
    (`lgm.models.sharded_checkpoint`).
    """

    stage = Stage.LAST_CHECKPOINT

    def __init__(
        self,
        dirpath: str,
        every_n_train_steps: int,
        filename: str = "last",
        every_n_minutes: float | None = None,
        keep_previous: int = 1,
        keep_every_n_steps: int | None = None,
    ) -> None:
        if keep_previous < 0 or (keep_every_n_steps is not None and keep_every_n_steps < 1):
            raise ValueError(
                f"callbacks.checkpoint_last.keep_previous={keep_previous} must be at least 0, and "
                f"keep_every_n_steps={keep_every_n_steps} at least 1, or null"
            )
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
        self._validated_at = -1
        self._stepping_from = -1
        self._has_started = False
        self._timer = SaveTimer(every_n_minutes)
        self._retention = {"previous": keep_previous, "every_n_steps": keep_every_n_steps}
        self._is_late = False  # by the clock or on request, since the last step
        self._is_requested = False
        self._step = -1
        self._is_prepared = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the writer how many former checkpoints to retain."""
        super().setup(trainer, pl_module, stage)
        if is_sharding(trainer):
            self.FILE_EXTENSION = _SHARDED
        if (writer := background_writer(trainer)) is not None:
            writer.retain(self._path, **self._retention)

    @property
    def state_key(self) -> str:
        """Its key in a checkpoint's callbacks."""
        return type(self).__qualname__  # Lightning's names the interval, which may change over a resume

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The path of the restored checkpoint, in this run's own folder."""
        with reading(f"{self.state_key} in the checkpoint", ANEW):
            # Lightning removes another file than the one that it writes: that of a run which was not sharded.
            restored = own_file(self.dirpath, state_dict)
            self.best_model_path = restored if restored == str(self._path) else ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restart the counts and the clock from the step of a resume."""
        # Not restored by Lightning: a resumed run would save again in the middle of its first step's
        # accumulation, and the next resume would start from half a step.
        self._last_global_step_saved = trainer.global_step
        self._stepping_from, self._has_started = -1, True
        self._step, self._is_late, self._is_prepared = trainer.global_step, False, False
        self._timer.restart()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self._stepping_from = trainer.global_step  # which counts a step when it is done

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimizer step that is due, unless a validation follows."""
        writer = background_writer(trainer)
        if writer is not None:
            writer.check()
        if trainer.global_step == self._step:  # in the middle of an accumulation
            return
        self._step = trainer.global_step
        if writer is not None and not self._is_prepared:
            self._is_prepared = True
            if pl_module.device.type != "cpu" and not isinstance(trainer.strategy, FSDPStrategy):
                writer.prepare(dumped_checkpoint(trainer))
        is_late = self._timer.is_due(trainer, is_busy=writer is not None and writer.is_busy)
        self._is_late = is_late or self._is_requested
        if (self._is_due(trainer) or self._is_late) and not _validation_follows(trainer):
            self._save(trainer)

    def request(self) -> None:
        """Save after the step that is ending; all ranks have to call it together."""
        self._is_requested = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The save that waited for the validation."""
        if trainer.sanity_checking:
            return
        self._validated_at = trainer.global_step
        if self._is_due(trainer) or self._is_late:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A last save, and the end of all writes."""
        self._save(trainer)  # a run that its time limit or an early stop has ended
        wait_for_writes(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, RunStopped):
            if exception.step is None or exception.at_once:
                return
            # A resume from here begins with the validation that was cut off or left out.
            is_left_out = _validation_follows(trainer) and self._validated_at != trainer.global_step
            self._validation_due = trainer.validating or is_left_out
            if not trainer.strategy.broadcast(self._path.exists()):  # resumed from another folder's
                self._last_global_step_saved = 0
            self._save(trainer)
            wait_for_writes(trainer)
            exception.saved = trainer.global_step > 0
        elif isinstance(exception, Exception):
            self._rescue(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict) -> None:
        checkpoint["validation_due"] = self._validation_due

    @property
    def _path(self) -> Path:
        return Path(self.dirpath) / f"{self.filename}{self.FILE_EXTENSION}"

    def _is_due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        return step % self.every_n_steps == 0 or step == trainer.max_steps

    def _rescue(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After an error (data, a logger, a full disk, a rank that is gone): a checkpoint of the last whole
        step. Other ranks stand somewhere else or nowhere, and are not waited for; their state is the same."""
        step = trainer.global_step
        if not trainer.is_global_zero or not self._has_started or step == self._last_global_step_saved:
            return
        path = self._path
        try:
            check_whole(trainer, pl_module, is_stepping=self._stepping_from == step)
            # Counted in steps: the error may have come before or after the batch was counted.
            batches = step * trainer.accumulate_grad_batches
            is_left_out = trainer.enable_validation and batches % trainer.val_check_batch == 0
            self._validation_due = bool(is_left_out and self._validated_at != step)
            trainer.strategy.save_checkpoint(dumped_checkpoint(trainer), str(path))
            wait_for_writes(trainer)
        except Exception as error:  # what has ended the run is what is to be said
            log.warning("no checkpoint of step %d: %s", step, first_line(error))
        else:
            self._last_global_step_saved = step
            log.warning("step %d is saved to %s: the same command goes on from there", step, path)

    def _save(self, trainer: Trainer) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._timer.restart()
            self._is_late = self._is_requested = False

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        with saving_shards(trainer):
            super()._save_checkpoint(trainer, filepath)


def own_file(dirpath: str, state_dict: dict[str, Any]) -> str:
    """The file of a restored state in a run's own folder, or nothing.

    Lightning removes the file that it has kept before, wherever its path leads: a path out of a file that
    somebody else made would be removed, and all that lies below it.
    """
    name = Path(state_dict["best_model_path"]).name
    return str(Path(dirpath) / name) if name.endswith((".ckpt", _SHARDED)) else ""


def check_whole(trainer: Trainer, pl_module: LightningModule, is_stepping: bool) -> None:
    """Raise ValueError where a checkpoint would not be that of `trainer.global_step`; EMA weights that are
    behind take the step first.

    Forward and backward passes change nothing that is saved: gradients are not, and a resume goes on in whole
    steps.

    is_stepping: the optimizer has begun its step and not ended it.
    """
    if is_stepping:
        raise ValueError("the optimizer was in the middle of its step")
    if isinstance(trainer.strategy, FSDPStrategy):
        raise ValueError("all ranks of trainer=fsdp would have to save it together")
    tensors = [*pl_module.state_dict().values()]
    for callback in trainer.callbacks:
        if isinstance(callback, EMA):
            callback.follow(trainer, pl_module)
            tensors += callback.net.state_dict().values()
    for optimizer in trainer.optimizers:
        tensors += [value for state in optimizer.state.values() for value in state.values()]
    if not all(bool(x.isfinite().all()) for x in tensors if isinstance(x, Tensor)):
        raise ValueError("weights or moments are not finite (NaN or infinity)")


def _validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates after the batch that has just ended, by its own count."""
    return bool(trainer.enable_validation and batches_done(trainer) % trainer.val_check_batch == 0)
