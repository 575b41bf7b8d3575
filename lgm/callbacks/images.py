"""Pictures of what the network makes, while it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from PIL import Image

from lgm.callbacks.pictures import mosaic, resized, spread_views, table, to_picture
from lgm.types import Prediction

HEADINGS = ("input", "target", "prediction", "alpha")
LOG_KEY = "val/images"


class ImageGrid(Callback):
    """Draws the first validation batch: one row an object, with its inputs, targets, predictions and
    alphas. Writes `<run_dir>/images/step_000123_val.png`, and hands the picture to loggers that take
    any.

    every_n_steps: a validation that comes sooner after the last picture draws none.
    num_objects, num_views: rows, and target views of each.
    tile_size: longer side of one view in pixels.
    """

    def __init__(
        self, every_n_steps: int = 1, num_objects: int = 4, num_views: int = 4, tile_size: int = 128
    ) -> None:
        for name, value in {
            "num_objects": num_objects,
            "num_views": num_views,
            "tile_size": tile_size,
        }.items():
            if value < 1:
                raise ValueError(f"ImageGrid needs {name} of at least 1, got {value}")
        self.every_n_steps = every_n_steps
        self.num_objects = num_objects
        self.num_views = num_views
        self.tile_size = tile_size
        self._last_step: int | None = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        step = trainer.global_step
        if batch_idx != 0 or dataloader_idx != 0 or not trainer.is_global_zero or not self._is_due(step):
            return
        self._last_step = step
        sheet = self.draw(outputs)
        path = Path(trainer.default_root_dir) / "images" / f"step_{step:06d}_val.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
        for logger in trainer.loggers:
            log_picture(logger, LOG_KEY, sheet, step)

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
        return [mosaic([resized(to_picture(x), self.tile_size) for x in images]) for images in columns]

    def _is_due(self, step: int) -> bool:
        # The picture before training (at the sanity check) does not delay the first one after it.
        return not self._last_step or step - self._last_step >= self.every_n_steps


def log_picture(logger: Logger, key: str, picture: Image.Image, step: int) -> None:
    """Hand a picture to a logger of the W&B or the TensorBoard kind; others take none."""
    if hasattr(logger, "log_image"):
        logger.log_image(key, [picture], step=step)
    elif hasattr(logger.experiment, "add_image"):
        logger.experiment.add_image(key, np.asarray(picture), step, dataformats="HWC")
