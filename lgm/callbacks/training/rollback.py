"""A loss spike that stays: back to the weights before it, on with other data."""

from __future__ import annotations

import logging
import statistics
from collections import deque
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.callbacks.order import Stage
from lgm.callbacks.training.background import is_sharding, wait_for_writes
from lgm.callbacks.training.checkpoint import LastCheckpoint
from lgm.callbacks.training.ema import EMA, KEY
from lgm.errors import first_line, reading

log = logging.getLogger(__name__)

_LEAST_HISTORY = 10  # logged losses before any is judged: the first fall steeply


class Rollback(Callback):
    """Rolls back after a loss spike, as large runs do by hand: weights, moments and EMA weights become
    those of the newest checkpoint from before the spike. Steps, schedule and data go on, so that other
    objects follow than those that the spike came with; a checkpoint is written at once.

    Judged at logged steps, by the mean loss of all ranks, so that all ranks decide the same.

    factor: a loss above so many times the median of the last `window` logged ones is a spike; None never
        rolls back.
    max_rollbacks: afterwards, a spike costs a warning alone.
    patience: so many logged steps in a row have to be spikes: one batch may be an outlier that goes by
        itself.
    """

    stage = Stage.ROLL_BACK

    def __init__(
        self, factor: float | None = None, max_rollbacks: int = 3, window: int = 50, patience: int = 2
    ) -> None:
        if factor is not None and not factor > 1:
            raise ValueError(f"train.rollback_factor={factor} must be above 1, or null for none")
        if max_rollbacks < 0 or window < _LEAST_HISTORY or patience < 1:
            raise ValueError(
                f"train.max_rollbacks={max_rollbacks} must be at least 0, callbacks.rollback.window={window} "
                f"at least {_LEAST_HISTORY} and patience={patience} at least 1"
            )
        self.factor, self.max_rollbacks, self.patience = factor, max_rollbacks, patience
        self._losses: deque[float] = deque(maxlen=window)  # without spikes
        self._good_step = 0  # the last logged one that was no spike
        self._spikes = 0  # in a row
        self._rollbacks = 0
        self._step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.factor is not None and is_sharding(trainer):
            raise ValueError(
                "train.rollback_factor needs whole weights and trainer=fsdp shards them; use ddp8"
            )

    def state_dict(self) -> dict[str, Any]:
        counts = {"good_step": self._good_step, "spikes": self._spikes, "rollbacks": self._rollbacks}
        return {"losses": list(self._losses), **counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with reading("Rollback in the checkpoint", "leave it out: callbacks.rollback=null"):
            self._losses.extend(float(loss) for loss in state_dict["losses"])
            self._good_step, self._spikes = int(state_dict["good_step"]), int(state_dict["spikes"])
            self._rollbacks = int(state_dict["rollbacks"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self.factor is None or step == self._step or step % trainer.log_every_n_steps:
            return
        self._step = step
        loss = float(trainer.callback_metrics["train/loss"])  # logged now: the program waits for it anyway
        if not loss < float("inf"):  # NaN too: such steps are skipped (`lgm.training.skipped_steps`)
            return
        median = statistics.median(self._losses) if len(self._losses) >= _LEAST_HISTORY else None
        if median is None or loss <= self.factor * median:
            self._losses.append(loss)
            self._good_step, self._spikes = step, 0
            return
        self._spikes += 1
        if self._spikes == self.patience:
            what = f"train/loss={loss:.4g} is more than {self.factor:g} times its median {median:.4g}"
            self._roll_back(trainer, pl_module, f"step {step}: {what} since step {self._good_step}")

    def _roll_back(self, trainer: Trainer, pl_module: LightningModule, what: str) -> None:
        if self._rollbacks >= self.max_rollbacks:
            _say(
                trainer, f"{what}, and train.max_rollbacks={self.max_rollbacks} are used up: training goes on"
            )
            return
        wait_for_writes(trainer)
        path = trainer.strategy.broadcast(self._good_checkpoint(trainer))
        if path is None:
            _say(
                trainer,
                f"{what}, and no checkpoint of step {self._good_step} or before is kept to roll back to: "
                "training goes on; save more often (train.checkpoint_every_steps), or keep more "
                "(callbacks.checkpoint_last.keep_previous)",
            )
            return
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        pl_module.roll_back(checkpoint)
        for callback in trainer.callbacks:
            if isinstance(callback, EMA) and KEY in checkpoint:
                callback.restore(checkpoint[KEY])
            if isinstance(callback, LastCheckpoint):
                callback.request()
        self._rollbacks, self._spikes = self._rollbacks + 1, 0
        _say(
            trainer,
            f"{what}: weights, moments and EMA weights are those of step {checkpoint['global_step']} "
            f"({path}), the data goes on; rollback {self._rollbacks} of {self.max_rollbacks}",
        )

    def _good_checkpoint(self, trainer: Trainer) -> str | None:
        """The newest checkpoint from before the spike, as the first rank sees it."""
        folders = {Path(c.dirpath) for c in trainer.callbacks if isinstance(c, LastCheckpoint)}
        if not trainer.is_global_zero or not folders:
            return None
        good: dict[str, int] = {}
        for path in (path for folder in folders for path in folder.glob("*.ckpt")):
            if path.stem == "last" or path.stem.startswith(("previous", "step_")):
                try:
                    good[str(path)] = torch.load(path, weights_only=True, mmap=True)["global_step"]
                except Exception as error:  # another one is taken
                    log.warning("%s cannot be read: %s", path, first_line(error))
        good = {path: step for path, step in good.items() if step <= self._good_step}
        return max(good, key=good.__getitem__, default=None)


def _say(trainer: Trainer, line: str) -> None:
    if trainer.is_global_zero:
        log.warning("%s", line)
