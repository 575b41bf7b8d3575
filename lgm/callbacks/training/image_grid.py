"""Image grids of inputs, targets and predictions, while a network learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from PIL import Image

from lgm.files import atomic
from lgm.reports.images import mosaic, resized, spread_views, table, to_image
from lgm.types import Batch, Prediction

HEADINGS = ("input", "target", "prediction", "alpha")


class ImageGrid(Callback):
    """Draws the first validation batch: one row an object, with its inputs, targets, predictions and
    alphas. Writes `<run_dir>/images/step_000123_val.png`, and hands the image to loggers that take
    any.

    every_n_steps: a validation that comes sooner after the last image draws none.
    train_every_n_steps: draw a training batch too, augmented as the network sees it, every so many
        optimizer steps, at the price of one more forward pass each; None for never.
    num_objects, num_views: rows, and target views of each.
    tile_size: longer side of one view in pixels.
    """

    def __init__(
        self,
        every_n_steps: int = 1,
        num_objects: int = 4,
        num_views: int = 4,
        tile_size: int = 128,
        train_every_n_steps: int | None = None,
    ) -> None:
        counts = {"num_objects": num_objects, "num_views": num_views, "tile_size": tile_size}
        if train_every_n_steps is not None:
            counts["train_every_n_steps"] = train_every_n_steps
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"ImageGrid needs {name} of at least 1, got {value}")
        self.every_n_steps = every_n_steps
        self.num_objects = num_objects
        self.num_views = num_views
        self.tile_size = tile_size
        self.train_every_n_steps = train_every_n_steps
        self._last_val_step = 0
        self._last_train_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the steps to the next training image from here."""
        self._last_train_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Draw a training batch where one is due."""
        step = trainer.global_step
        if self.train_every_n_steps is None or step - self._last_train_step < self.train_every_n_steps:
            return
        self._last_train_step = step
        # On every rank: a sharded network computes only with all of them.
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            prediction = pl_module.predict(batch)
        self._publish(trainer, prediction, "train")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder of images, on rank 0."""
        if trainer.is_global_zero:  # what stands in the way is said before the first step
            (Path(trainer.default_root_dir) / "images").mkdir(parents=True, exist_ok=True)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first batch of a validation."""
        step = trainer.global_step
        # The image from before training (the sanity check's) does not delay the first one after it.
        is_due = not self._last_val_step or step - self._last_val_step >= self.every_n_steps
        if batch_idx == 0 and dataloader_idx == 0 and is_due:
            self._last_val_step = step
            self._publish(trainer, outputs, "val")

    def _publish(self, trainer: Trainer, prediction: Prediction, split: str) -> None:
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        sheet = self.draw(prediction)
        path = Path(trainer.default_root_dir) / "images" / f"step_{step:06d}_{split}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as partial:
            sheet.save(partial, format="PNG")
        for logger in trainer.loggers:
            send_image(logger, f"{split}/images", sheet, step)

    def draw(self, prediction: Prediction) -> Image.Image:
        """The sheet for the batch's first objects."""
        num_rows = min(self.num_objects, len(prediction.batch.uids))
        return table([self._row(prediction, scene) for scene in range(num_rows)], HEADINGS)

    def _row(self, prediction: Prediction, scene: int) -> list[Image.Image]:
        batch = prediction.batch
        views = spread_views(batch.target.cameras[scene], self.num_views)
        columns = [
            batch.input.images[scene],
            batch.target.images[scene, views],
            prediction.render.images[scene, views],
            prediction.render.alphas[scene, views],
        ]
        return [mosaic([resized(to_image(x), self.tile_size) for x in images]) for images in columns]


def send_image(logger: Logger, key: str, image: Image.Image, step: int) -> None:
    """Hand an image to a logger that takes any, as ours and Lightning's own do."""
    if hasattr(logger, "log_image"):
        logger.log_image(key, [image], step=step)
    elif hasattr(logger.experiment, "add_image"):
        logger.experiment.add_image(key, np.asarray(image), step, dataformats="HWC")
