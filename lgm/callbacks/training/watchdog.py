"""A watchdog for hung ranks.

Where nothing has moved for minutes, every rank dumps its stacks, one line names the rank that the others
wait for, and the run ends, so that its supervisor (Slurm, torchrun, systemd) can start it again.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lgm import stopping
from lgm.files import atomic

EXIT_CODE = 3
_POLL_S = 1.0
_PATIENCE_S = 30.0  # for the stacks of other ranks, which stopped within a step of this one


class _Progress:
    """Progress of this process: number of events, optimizer steps, and what it is doing."""

    def __init__(self) -> None:
        self.count, self.step, self.doing = 0, 0, "the start"


_progress = _Progress()


def beat(doing: str, step: int | None = None) -> None:
    """Something has moved: what comes next is `doing`, after `step` optimizer steps."""
    _progress.count += 1
    _progress.doing = doing
    if step is not None:
        _progress.step = step


class Standstill:
    """Whether nothing has moved on any rank for `limit_s`.

    A rank that waits for another one that is merely slow does not move either. So each rank publishes how far
    it is in a file, ten times per `limit_s`, and reads the others' once it has waited for half of that.

    folder: the same for all ranks.
    """

    def __init__(self, limit_s: float, folder: Path, rank: int, world_size: int) -> None:
        self.limit_s, self.folder, self.rank, self.world_size = limit_s, folder, rank, world_size
        self._count = -1
        self._still_s = self._quiet_s = 0.0  # since this rank, and since any other, has moved
        self._until_exchange_s = 0.0
        self._others: dict[int, str] = {}

    def tick(self, elapsed_s: float, count: int) -> bool:
        """After `elapsed_s` more seconds awake, with `count` moves of this rank so far."""
        self._still_s = self._still_s + elapsed_s if count == self._count else 0.0
        self._quiet_s += elapsed_s
        self._count = count
        if self.world_size > 1:
            self._until_exchange_s -= elapsed_s
            if self._until_exchange_s <= 0:
                self._until_exchange_s = self.limit_s / 10
                self._exchange()
        # Others are read from half of the limit on, and published ten times per limit: 0.4 is the longest
        # silence that can be seen by then.
        is_quiet = self.world_size == 1 or self._quiet_s >= 0.4 * self.limit_s
        return self._still_s >= self.limit_s and is_quiet

    def forget(self) -> None:
        """At the end of a training."""
        with suppress(OSError):
            self._path(self.rank).unlink(missing_ok=True)
            self.folder.rmdir()

    def _exchange(self) -> None:
        with suppress(OSError):  # what cannot be published looks like a standstill, which has its own line
            self.folder.mkdir(parents=True, exist_ok=True)
            self._path(self.rank).write_text(str(self._count))
        if self._still_s < self.limit_s / 2:
            self._quiet_s = 0.0
            return
        others = {}
        for rank in range(self.world_size):
            if rank != self.rank:
                with suppress(OSError):
                    others[rank] = self._path(rank).read_text()
        if others != self._others:
            self._others, self._quiet_s = others, 0.0

    def _path(self, rank: int) -> Path:
        return self.folder / f"rank{rank}"


class Watchdog(Callback):
    """Ends a run in which nothing has moved for `after_minutes`, with exit code 3, from its first batch on.

    Each rank writes the stacks of all its threads to `<folder>/stalled_rank<k>.txt`. Ranks meet in each step,
    so that where one stands still all do (`Standstill`): the one that has come least far, or that writes no
    file because it is frozen or gone, is the one to look at.

    after_minutes: without any batch begun, passed back or ended; None watches nothing. Counted in seconds
        that this process was awake: one that was suspended for hours has not stood still.
    folder: the same for all ranks.
    """

    def __init__(self, after_minutes: float | None, folder: str, patience_s: float = _PATIENCE_S) -> None:
        if after_minutes is not None and not after_minutes > 0:
            raise ValueError(f"train.watchdog_minutes={after_minutes} must be above 0, or null for none")
        self.after_minutes, self.folder, self.patience_s = after_minutes, Path(folder), patience_s
        self._rank, self._world_size = 0, 1
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the watching thread."""
        if self.after_minutes is None:
            return
        self._rank, self._world_size = trainer.global_rank, trainer.world_size
        self._path(self._rank).unlink(missing_ok=True)  # of the run before
        beat("the first batch", trainer.global_step)
        self._over.clear()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Progress: a batch has arrived."""
        beat("the forward pass", trainer.global_step)

    def on_before_backward(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Progress: the forward pass is queued."""
        beat("the backward pass", trainer.global_step)

    def on_before_optimizer_step(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Progress: the backward pass is queued."""
        beat("the optimizer's step", trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Progress: the batch is done."""
        beat("callbacks, or the next batch", trainer.global_step)

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Progress: a validation batch has arrived."""
        beat("a validation batch", trainer.global_step)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Progress: a validation batch is done."""
        beat("validation, or its next batch", trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Progress: the validation is done."""
        beat("callbacks after the validation", trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop watching."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop watching: the run is ending by itself."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching."""
        self._stop()

    def _stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _path(self, rank: int) -> Path:
        return self.folder / f"stalled_rank{rank}.txt"

    def _watch(self) -> None:
        limit_s = 60 * self.after_minutes
        poll_s = min(_POLL_S, limit_s / 20)
        standstill = Standstill(limit_s, self.folder / ".watchdog", self._rank, self._world_size)
        while not self._over.wait(poll_s):
            if standstill.tick(poll_s, _progress.count):
                self._end()
        standstill.forget()

    def _end(self) -> None:
        self._dump()
        records = self._records()
        first = min(records, default=self._rank)
        if self._rank == first:
            sys.stderr.write(f"error: {self._line(records)}\n")
            sys.stderr.flush()
        else:
            time.sleep(min(5.0, self.patience_s))  # the first one's end would end this one before its line
        stopping.end_workers()
        os._exit(EXIT_CODE)

    def _dump(self) -> None:
        record = {"step": _progress.step, "count": _progress.count, "doing": _progress.doing}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic(self._path(self._rank)) as partial, partial.open("w") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError:  # a full disk, or the disk is what stands still
            faulthandler.dump_traceback(all_threads=True)

    def _records(self) -> dict[int, dict[str, Any]]:
        """The records of all ranks; waits for those that are not yet written."""
        deadline = time.monotonic() + self.patience_s
        records: dict[int, dict[str, Any]] = {}
        while True:
            for rank in set(range(self._world_size)) - set(records):
                try:
                    records[rank] = json.loads(self._path(rank).read_text().partition("\n")[0])
                except (OSError, ValueError):
                    continue
            if len(records) == self._world_size or time.monotonic() > deadline:
                return records
            time.sleep(min(0.1, self.patience_s))

    def _line(self, records: dict[int, dict[str, Any]]) -> str:
        missing = sorted(set(range(self._world_size)) - set(records))
        behind = min(((r["step"], r["count"]) for r in records.values()), default=(0, 0))
        ranks = [rank for rank, r in sorted(records.items()) if (r["step"], r["count"]) == behind]
        one = records.get(
            ranks[0] if ranks else self._rank, {"step": _progress.step, "doing": _progress.doing}
        )
        where = f"step {one['step'] + 1}, before or in {one['doing']}"
        if missing:
            who = f"rank {_listed(missing)} gives no sign of life; the others wait in {where}"
        elif self._world_size == 1 or len(ranks) == self._world_size:
            who = f"rank {_listed(ranks)} stands still in {where}"
        else:
            who = f"rank {_listed(ranks)} stands still in {where}; the others wait for it"
        return (
            f"nothing has moved for {self.after_minutes:g} minutes (train.watchdog_minutes): {who}; stacks "
            f"of all threads: {self._path(self._rank)} (one file a rank); the same command goes on from the "
            "last checkpoint"
        )


def _listed(ranks: list[int]) -> str:
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return ", ".join(map(str, ranks[:8])) + more
