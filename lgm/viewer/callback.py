"""`train.py callbacks=viewer`: validation objects in a browser, as they improve."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.callbacks.order import Stage
from lgm.types import Prediction
from lgm.viewer.objects import Predictions, ViewedObject, inputs_of
from lgm.viewer.server import LOCALHOST, PORT, ViewerServer

log = logging.getLogger(__name__)


class ViewerCallback(Callback):
    """Shows the first validation objects in a browser while a network trains; each validation replaces them.

    port: where the page is served; where it is taken, the next free one is.
    host: the address that the server listens on. Another than 127.0.0.1 shows it to the network, without a
        password; the log warns.
    max_objects: how many objects are kept, in memory.

    Rank 0 alone serves, of the objects that it validates. What the network sees is shown, in its frame.
    """

    stage = Stage.REPORT

    def __init__(self, port: int = PORT, host: str = LOCALHOST, max_objects: int = 8) -> None:
        if max_objects < 1:
            raise ValueError(f"callbacks.viewer.max_objects={max_objects} must be at least 1")
        if not 0 <= port <= 65535:
            raise ValueError(f"callbacks.viewer.port={port} is not in 0..65535")
        self.port, self.host, self.max_objects = port, host, max_objects
        self._objects = Predictions("training")
        self._pending: list[tuple[str, ViewedObject]] = []
        self.server: ViewerServer | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the server on rank 0."""
        if stage == "fit" and trainer.is_global_zero and self.server is None:
            self.server = ViewerServer([self._objects], self.host, self.port, live=True)
            self.server.start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new set of objects."""
        self._pending = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Copy the batch's first objects to the host."""
        if self.server is None:
            return
        left = self.max_objects - len(self._pending)
        for scene, uid in enumerate(outputs.batch.uids[:left]):
            gaussians = outputs.gaussians.scene(scene).detach().to("cpu", torch.float32)
            self._pending.append((uid, ViewedObject(gaussians, inputs_of(outputs.batch, scene))))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the objects, all at once."""
        if self.server is not None and self._pending:
            self._objects.put(self._pending, trainer.global_step)
            self.server.changed()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.close()
            self.server = None
