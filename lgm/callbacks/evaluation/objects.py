"""Base of the callbacks that write files per evaluated object, and tolerance of failures on single
objects.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.reports.folders import object_dir
from lgm.types import Prediction

log = logging.getLogger(__name__)


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

        module: has the `renderer`. scene: the object's index in the prediction's batch.
        """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the counts."""
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
        """Write each object of the batch, failures tolerated."""
        for scene, uid in enumerate(outputs.batch.uids):
            # Counted before it is written: an object that fails counts, too.
            self._seen += 1
            if self.max_objects is not None and self._seen > self.max_objects:
                return
            with tolerate(self.what, uid, self.failed):
                folder = object_dir(trainer.default_root_dir, uid)
                folder.mkdir(parents=True, exist_ok=True)
                self.write(pl_module, outputs, scene, folder)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of the objects that failed."""
        if self.failed:
            log.warning("%s: missing for %d objects; see above", self.what, len(self.failed))


@contextmanager
def tolerate(what: str, uid: str, failed: list[str]) -> Iterator[None]:
    """Log a failure on one object, add its uid to `failed`, and go on: an evaluation of a thousand
    objects does not end for one."""
    try:
        yield
    except Exception as error:
        failed.append(uid)
        log.warning("%s failed for object %s: %s: %s", what, uid, type(error).__name__, error)
