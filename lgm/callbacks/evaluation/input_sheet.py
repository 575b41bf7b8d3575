"""A sheet of inputs and their re-rendered views, for objects without other images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lgm.callbacks.evaluation.objects import ObjectHook
from lgm.files import atomic
from lgm.metrics import novel_targets
from lgm.reports.images import resized, table, to_image
from lgm.types import Prediction

_SIZE = 192  # of each image on a sheet, in pixels


class InputSheet(ObjectHook):
    """Writes `<run_dir>/objects/<uid>/inputs.png` for each object that has no view besides its inputs:
    above what the network was given, below what it made of it, seen from there.

    max_objects: only for the first so many of each process; None is for all.
    """

    what = "the sheet of inputs"

    def __init__(self, max_objects: int | None = None) -> None:
        super().__init__(max_objects)
        self._is_measured: list[bool] = []  # of each object of the batch at work

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Prediction, *rest: Any
    ) -> None:
        """Note which objects of the batch have novel views."""
        self._is_measured = novel_targets(outputs.batch).any(dim=1).tolist()  # the device is asked once
        super().on_test_batch_end(trainer, pl_module, outputs, *rest)

    def write(self, module: LightningModule, prediction: Prediction, scene: int, folder: Path) -> None:
        """inputs.png, unless the object was measured."""
        if self._is_measured[scene]:
            return
        with atomic(folder / "inputs.png") as partial:
            _sheet(prediction, scene).save(partial, format="PNG")


def _sheet(prediction: Prediction, scene: int) -> Any:
    """Inputs over their re-rendered views, one column a view."""
    given = [resized(to_image(image), _SIZE) for image in prediction.batch.target.images[scene]]
    made = [resized(to_image(image), _SIZE) for image in prediction.render.images[scene]]
    return table([given, made], [f"view {view}" for view in prediction.batch.target.view_ids[scene].tolist()])
