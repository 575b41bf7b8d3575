"""What an evaluation writes for each object, and what happens when one object cannot be written."""

from __future__ import annotations

import hashlib
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.types import Prediction

log = logging.getLogger(__name__)

_LONGEST_NAME = 100  # bytes
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{i}" for port in ("COM", "LPT") for i in range(10))}


class ObjectHook(Callback, ABC):
    """Writes something for each object that is tested, into `<run_dir>/objects/<uid>/`.

    What fails on one object is in the log with its reason, and the run goes on. A new hook says what it
    makes (`what`) and makes it (`write`); a file of `configs/callbacks` gives it a name and options.

    max_objects: only for the first so many of each process; None is for all.
    failed: uids that could not be written.
    """

    what: str

    def __init__(self, max_objects: int | None = None) -> None:
        if max_objects is not None and max_objects < 1:
            raise ValueError(f"max_objects={max_objects} must be at least 1, or null for all objects")
        self.max_objects = max_objects
        self.failed: list[str] = []
        self._seen = 0

    @abstractmethod
    def write(self, module: LightningModule, prediction: Prediction, scene: int, folder: Path) -> None:
        """Write one object into its folder, which exists.

        module: has the `renderer`. scene: the object's place in the prediction's batch.
        """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.failed, self._seen = [], 0

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for scene, uid in enumerate(outputs.batch.uids):
            self._seen += 1
            if self.max_objects is not None and self._seen > self.max_objects:
                return
            with tolerate(self.what, uid, self.failed):
                folder = object_dir(trainer.default_root_dir, uid)
                folder.mkdir(parents=True, exist_ok=True)
                self.write(pl_module, outputs, scene, folder)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.failed:
            log.warning("%s: missing for %d objects; see above", self.what, len(self.failed))


def object_dir(run_dir: str | Path, uid: str) -> Path:
    """`<run_dir>/objects/<uid>`, wherever that name is one a file system takes.

    Other uids lose the characters that are no part of a file name (a uid may be a path), or are cut where the
    name would be too long, and get a few digits of their hash, so that two of them never share a folder. So
    do names that Windows keeps for devices.
    """
    name = re.sub(r"[^\w.-]+", "_", uid).strip(".").lstrip("-")
    # By its bytes, of which a file system takes 255; a character may have four.
    name = name.encode("utf-8", "ignore")[:_LONGEST_NAME].decode("utf-8", "ignore") or "object"
    if name.partition(".")[0].upper() in _DEVICES:
        name = f"_{name}"
    if name != uid:
        name += "_" + hashlib.sha256(uid.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return Path(run_dir) / "objects" / name


@contextmanager
def tolerate(what: str, uid: str, failed: list[str]) -> Iterator[None]:
    """Log a failure on one object, add its uid to `failed`, and go on: an evaluation of a thousand
    objects does not end for one."""
    try:
        yield
    except Exception as error:
        failed.append(uid)
        log.warning("%s failed for object %s: %s: %s", what, uid, type(error).__name__, error)
