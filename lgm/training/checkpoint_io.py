"""Checkpoint files: atomic writes, retention of former ones, and asynchronous saving.

A kill at any moment leaves a complete checkpoint.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lgm import stopping
from lgm.errors import first_line
from lgm.files import PARTIAL_SUFFIX, atomic
from lgm.models.sharded_checkpoint import Shards, is_sharded, newest
from lgm.training.host_state import HostState
from lgm.training.mirror import Mirror

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """Checkpoint retention: what is kept of a file that is overwritten.

    previous: how many of its predecessors, as `previous.ckpt`, `previous_2.ckpt`, …
    every_n_steps: keeps the first at or after each multiple, as `step_00001000.ckpt`; None keeps none.
    """

    previous: int = 0
    every_n_steps: int | None = None


class AtomicCheckpointIO(TorchCheckpointIO):
    """Atomic writes: beside the target, waits for the disk, then renames.

    Lightning's own goes through memory and the system's temporary folder and moves the file from
    there, which between two disks is a copy: a kill in its middle would leave half a `last.ckpt`. A stop
    that is asked for meanwhile waits for the write.
    """

    def __init__(self) -> None:
        super().__init__()
        self._retention: dict[Path, Retention] = {}

    def retain(self, path: str | Path, previous: int = 0, every_n_steps: int | None = None) -> None:
        """From now on keep these of what is written to `path` (`Retention`)."""
        self._retention[Path(path)] = Retention(previous, every_n_steps)

    def retention(self, path: str | Path) -> Retention:
        """What is kept of what is written to `path`."""
        return self._retention.get(Path(path), Retention())

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write and retain former files; ValueError in one line for a full or broken disk."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        retention = self.retention(path)
        predecessor = path.with_name(f"previous.ckpt{PARTIAL_SUFFIX}")
        is_main = threading.current_thread() is threading.main_thread()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with stopping.held() if is_main else stopping.writing():
                if retention.previous and path.is_file():
                    # A hard link before the rename: the former file keeps a name while the new one takes its
                    # place.
                    _link(path, predecessor)
                with atomic(path, sync=True, alone=True) as partial, partial.open("wb") as file:
                    torch.save(checkpoint, file)
                if retention.previous and predecessor.is_file():
                    _shift(predecessor, retention.previous)
                if retention.every_n_steps is not None:
                    _keep(path, int(checkpoint["global_step"]), retention.every_n_steps)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise ValueError(
                f"{path} cannot be written ({first_line(error)}); what was there before is whole: "
                "make room, and the same command goes on"
            ) from error
        finally:
            if retention.previous:
                with suppress(OSError):
                    predecessor.unlink(missing_ok=True)


class AsyncCheckpointIO(AtomicCheckpointIO):
    """Copies the state to host memory, on a GPU behind the step that is under way, and writes it in a thread.

    The host memory is that of the state once, kept from one save to the next; a save of another step waits
    until the one before is written. An error of the thread is raised by the next call of any method.

    mirror: where files are uploaded to after they are written, in a thread of its own.
    """

    def __init__(self, mirror: Mirror | None = None) -> None:
        super().__init__()
        self.mirror = mirror
        self._host = HostState()
        self._step: int | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._pending: list[Future[None]] = []
        self.is_ending = threading.Event()  # the run is over: nothing may wait for other ranks any more

    @property
    def is_busy(self) -> bool:
        """Whether a write is under way."""
        return any(not write.done() for write in self._pending)

    def prepare(self, checkpoint: dict[str, Any]) -> None:
        """Make the host memory for checkpoints of this form now, so that no save does."""
        self._wait_for_writes()
        self._host.copy(checkpoint, None, with_values=False)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Copy the state to the host and queue the write; raises the ValueError of an earlier write that
        failed.
        """
        step = checkpoint.get("global_step")
        if step is None or step != self._step:
            # One set of buffers: a save of another step waits for the disk.
            self._wait_for_writes()
        self.check()
        copied, event = self._host.copy(checkpoint, step)
        self._step = step
        self.then(self._write, copied, path, event, storage_options)

    def then(self, task: Callable[..., None], *arguments: Any) -> None:
        """Run a task in the thread after all writes before it; its error is that of a write."""
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
            self.is_ending.clear()
        self._pending.append(self._writer.submit(task, *arguments))

    def check(self) -> None:
        """Raise the ValueError of a write that has failed."""
        for write in [write for write in self._pending if write.done()]:
            self._pending.remove(write)
            write.result()

    def wait(self) -> None:
        """Until all is written, and uploaded to the mirror; raises as `check`."""
        self._wait_for_writes()
        if self.mirror is not None:
            self.mirror.wait()

    def _wait_for_writes(self) -> None:
        while self._pending:
            self._pending[0].exception()
            self.check()

    def teardown(self) -> None:
        """By Lightning at the end of a run, however it ends."""
        self.is_ending.set()
        try:
            self.wait()
        except Exception as error:
            log.error("%s", first_line(error))
        finally:
            if self._writer is not None:
                self._writer.shutdown()
                self._writer = None
            self._host.clear()

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """A single file, or in full a save of `lgm.models.sharded_checkpoint`."""
        if is_sharded(path):
            return Shards.of_folder(newest(Path(path))).full()
        options = {} if map_location is None else {"map_location": map_location}
        return super().load_checkpoint(path, weights_only=weights_only, **options)

    def _write(self, copied: Any, path: str | Path, event: torch.Event | None, storage_options: Any) -> None:
        # In the writer's thread: it waits for the device's copy, training does not.
        if event is not None:
            event.synchronize()
        super().save_checkpoint(copied, path, storage_options)
        if self.mirror is not None:
            path = Path(path)
            kept = path.with_name(f"step_{copied['global_step']:08d}.ckpt")
            self.mirror.push(path, self.retention(path).previous, kept.name if kept.is_file() else None)


def _link(source: Path, target: Path) -> None:
    """A second name of the file; a copy where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _shift(newest: Path, count: int) -> None:
    """`newest` becomes previous.ckpt, that one previous_2.ckpt, and so on to `count` of them."""
    names = [newest, newest.with_name("previous.ckpt")]
    names += [newest.with_name(f"previous_{number}.ckpt") for number in range(2, count + 1)]
    for source, target in reversed(list(itertools.pairwise(names))):
        if source.is_file():
            source.replace(target)


def _keep(path: Path, step: int, every_n_steps: int) -> None:
    kept = [int(m[1]) for f in path.parent.glob("step_*.ckpt") if (m := re.fullmatch(r"step_(\d+)", f.stem))]
    if step // every_n_steps > max((number for number in kept if number <= step), default=0) // every_n_steps:
        partial = path.with_name(f"step_{step:08d}.ckpt{PARTIAL_SUFFIX}")
        _link(path, partial)
        partial.replace(path.with_name(f"step_{step:08d}.ckpt"))
