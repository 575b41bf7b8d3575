"""Asynchronous checkpoints, from the callbacks' side: saves by the clock, and the thread that writes."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Trainer

from lgm.metrics import Late


@runtime_checkable
class BackgroundWriter(Protocol):
    """Of `lgm.training.checkpoint_io.AsyncCheckpointIO`."""

    is_busy: bool

    def retain(self, path: Path, previous: int = 0, every_n_steps: int | None = None) -> None:
        """Keep former files of `path`: the `previous` latest, and one at each multiple of `every_n_steps`."""

    def prepare(self, checkpoint: dict[str, Any]) -> None:
        """Allocate the page-locked memory that a checkpoint of this size needs."""

    def check(self) -> None:
        """Raise ValueError where an earlier write has failed."""

    def wait(self) -> None:
        """Return once all writes have ended."""


@runtime_checkable
class SavesShards(Protocol):
    """Of `lgm.training.sharded.ShardedFSDPStrategy`."""

    def saving_shards(self) -> AbstractContextManager[None]:
        """Within the block, each rank saves its own shard."""
        ...


def is_sharding(trainer: Trainer) -> bool:
    """Whether each rank writes its own shard of a checkpoint."""
    return isinstance(trainer.strategy, SavesShards)


def saving_shards(trainer: Trainer) -> AbstractContextManager[None]:
    """Checkpoints that are saved in the block are sharded, where the trainer's ranks can do that."""
    strategy = trainer.strategy
    return strategy.saving_shards() if isinstance(strategy, SavesShards) else nullcontext()


def background_writer(trainer: Trainer) -> BackgroundWriter | None:
    """The trainer's asynchronous writer on ranks that write: rank 0, with shards every rank; None on others
    and where writes are synchronous."""
    writer = trainer.strategy.checkpoint_io
    is_writing = trainer.is_global_zero or is_sharding(trainer)
    return writer if is_writing and isinstance(writer, BackgroundWriter) else None


def wait_for_writes(trainer: Trainer) -> None:
    """Wait until all checkpoints are on the disk; raises ValueError where one could not be written."""
    if (writer := background_writer(trainer)) is not None:
        writer.wait()


class SaveTimer:
    """Whether a save is due by the first rank's clock; all ranks decide the same at the same step.

    every_n_minutes: since `restart`; None is never.
    """

    def __init__(self, every_n_minutes: float | None) -> None:
        self.every_n_minutes = every_n_minutes
        self._since = time.monotonic()
        self._asked: Late | None = None

    def restart(self) -> None:
        """After a save; all ranks have to call it together."""
        self._since, self._asked = time.monotonic(), None

    def is_due(self, trainer: Trainer, is_busy: bool) -> bool:
        """After each step; all ranks have to call it together.

        is_busy: of the first rank: the save before is still being written.
        """
        if self.every_n_minutes is None:
            return False
        is_due = time.monotonic() - self._since >= 60 * self.every_n_minutes and not is_busy
        if trainer.world_size == 1:
            return is_due
        # Of the step before: by now it is known, and reading it waits for no device.
        before = self._asked
        asked = torch.tensor(float(is_due and trainer.is_global_zero))
        asked = asked.to(trainer.strategy.root_device, non_blocking=True)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        self._asked = Late(asked)
        return before is not None and bool(before.read())
