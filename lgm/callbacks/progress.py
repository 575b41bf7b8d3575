"""Progress and ETA in optimizer steps: the unit of max_steps, the schedule and the checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from lgm.callbacks.rate import RecentRate
from lgm.types import Batch

log = logging.getLogger(__name__)

DEFAULT_METRICS = {"loss": "train/loss", "psnr": "train/psnr"}


class StepProgress(ProgressBar):
    """A bar in a terminal; elsewhere (a file, a cluster's log) a line now and then:
    `step 120/900 · loss 0.0312 · psnr 17.2 · 6.1 objects/s · 4:10 left`, and in an evaluation
    `object 12/190 · 0.33 objects/s · 8:59 left`.

    Lightning's bars count batches of an epoch, which say nothing here: one step may take several,
    and there are no epochs.

    metrics: what to show, label to name of a logged metric; one that nobody logged is left out.
    log_every_s: seconds from line to line where there is no terminal.
    refresh_every_s: seconds from update to update in a terminal. Showing a metric waits for the
        device, so neither is done at each step.
    """

    def __init__(
        self,
        metrics: Mapping[str, str] | None = None,
        log_every_s: float = 30.0,
        refresh_every_s: float = 1.0,
    ) -> None:
        super().__init__()
        self._metrics = dict(DEFAULT_METRICS if metrics is None else metrics)
        self._log_every_s = log_every_s
        self._refresh_every_s = refresh_every_s
        self._enabled = True
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._rate = RecentRate()
        self._objects = 0
        self._shown_at = 0.0
        self._last_step = 0

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing, as Lightning asks of all ranks but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at the step of a resume, not at 0."""
        self._start("train", trainer.global_step, trainer.max_steps)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch's objects on all ranks, and a step where the batch completed one."""
        self._objects += len(batch.uids) * trainer.world_size
        if trainer.global_step == self._last_step:  # gradients accumulate: no step yet
            return
        self._advance(trainer, "step", trainer.global_step, trainer.max_steps)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One line with the validation's PSNR."""
        value = trainer.callback_metrics.get("val/psnr")
        if self._enabled and value is not None and not trainer.sanity_checking:
            self._say(f"step {trainer.global_step} · validation · psnr {float(value):.2f}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count objects where their number is known, else batches."""
        total = _total_objects(trainer)
        self._start("test", 0, total or _total_batches(trainer))
        if total and self._enabled:
            self._say(f"{total} objects to measure")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch's objects on all ranks."""
        self._objects += len(batch.uids) * trainer.world_size
        if total := _total_objects(trainer):
            self._advance(trainer, "object", min(self._objects, total), total)
        else:
            self._advance(trainer, "batch", self._last_step + 1, _total_batches(trainer))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, which would hide the error."""
        self._stop()

    def _start(self, what: str, step: int, total: int) -> None:
        self._stop()
        # A resumed run's rate counts from here: earlier steps took no time of this process.
        self._rate, self._objects, self._last_step = RecentRate(), 0, step
        self._rate.mark(step, 0)
        self._shown_at = 0.0
        console = Console()
        if self._enabled and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(what, total=total if total > 0 else None, completed=step, note="")
            self._bar.start()

    def _advance(self, trainer: Trainer, unit: str, step: int, total: int) -> None:
        self._last_step = step
        self._rate.mark(step, self._objects)
        if not self._enabled:
            return
        now = time.monotonic()
        every = self._log_every_s if self._bar is None else self._refresh_every_s
        # The last step is always shown.
        if self._shown_at and now - self._shown_at < every and step != total:
            return
        self._shown_at = now
        parts = self._notes(trainer, step, total)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=" · ".join(parts))
        else:
            count = f"{step}/{total}" if total > 0 else str(step)
            log.info("%s", " · ".join([f"{unit} {count}", *parts]))

    def _notes(self, trainer: Trainer, step: int, total: int) -> list[str]:
        logged = trainer.callback_metrics
        notes = [
            f"{label} {float(logged[name]):.3g}" for label, name in self._metrics.items() if name in logged
        ]
        if rate := self._rate.per_s():
            steps_per_s, objects_per_s = rate
            notes.append(f"{objects_per_s:{'.1f' if objects_per_s >= 1 else '.2g'}} objects/s")
            # ETA from the recent rate, not from the whole run's: validation and start-up would distort it.
            if total > step and steps_per_s > 0:
                notes.append(f"{duration((total - step) / steps_per_s)} left")
        return notes

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.out(line, highlight=False)
        else:
            log.info("%s", line)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration(seconds: float) -> str:
    """4:10, or 1:02:03 from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _total_objects(trainer: Trainer) -> int:
    """Objects that all ranks test; 0 where the data module does not say."""
    return getattr(getattr(trainer, "datamodule", None), "num_test_objects", 0)


def _total_batches(trainer: Trainer) -> int:
    """Test batches of this rank; 0 where a stream does not know its length."""
    total = sum(trainer.num_test_batches)
    return int(total) if total != float("inf") else 0
