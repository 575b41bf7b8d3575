"""What an evaluation shows of objects of which there are no other images than its inputs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lgm.callbacks.evaluation.measure import NOTHING_NOVEL
from lgm.callbacks.evaluation.objects import ObjectHook
from lgm.files import atomic, write_text
from lgm.metrics import gather_items, novel_targets
from lgm.reports.images import resized, table, to_image
from lgm.reports.pages import render
from lgm.types import Prediction

log = logging.getLogger(__name__)

_SIZE = 192  # of each image on a sheet, in pixels


class InputSheet(ObjectHook):
    """Writes `<run_dir>/objects/<uid>/inputs.png` for each object that has no view besides its inputs:
    above what the network was given, below what it made of it, seen from there. Where all objects are
    such, there are no numbers, and `report.html` shows the sheets.

    max_objects: only for the first so many of each process; None is for all.
    """

    what = "the sheet of inputs"

    def __init__(self, max_objects: int | None = None) -> None:
        super().__init__(max_objects)
        self._sheets: list[tuple[str, str]] = []  # uid, and path beside the report
        self._any_measured = False
        self._is_measured: list[bool] = []  # of each object of the batch at work

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_start(trainer, pl_module)
        self._sheets, self._any_measured = [], False

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Prediction, *rest: Any
    ) -> None:
        self._is_measured = novel_targets(outputs.batch).any(dim=1).tolist()  # the device is asked once
        self._any_measured |= any(self._is_measured)
        super().on_test_batch_end(trainer, pl_module, outputs, *rest)

    def write(self, module: LightningModule, prediction: Prediction, scene: int, folder: Path) -> None:
        if self._is_measured[scene]:
            return
        with atomic(folder / "inputs.png") as partial:
            _sheet(prediction, scene).save(partial, format="PNG")
        self._sheets.append((prediction.batch.uids[scene], f"objects/{folder.name}/inputs.png"))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_end(trainer, pl_module)
        sheets = sorted(set(gather_items(self._sheets)))  # of all ranks, so that each must ask
        measured = any(gather_items([self._any_measured]))
        if trainer.is_global_zero and sheets and not measured:
            path = Path(trainer.default_root_dir) / "report.html"
            write_text(path, page(sheets))
            log.info("report: %s", path)


def _sheet(prediction: Prediction, scene: int) -> Any:
    """Inputs over their re-rendered views, one column a view."""
    given = [resized(to_image(image), _SIZE) for image in prediction.batch.target.images[scene]]
    made = [resized(to_image(image), _SIZE) for image in prediction.render.images[scene]]
    return table([given, made], [f"view {view}" for view in prediction.batch.target.view_ids[scene].tolist()])


def page(sheets: list[tuple[str, str]]) -> str:
    """uid, and the sheet's path beside the page, of each object."""
    return render("inputs.html", reason=NOTHING_NOVEL, sheets=sheets)
