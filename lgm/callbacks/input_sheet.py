"""What an evaluation shows of objects of which there are no other pictures than its inputs."""

from __future__ import annotations

import logging
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.callbacks.measure import NOTHING_NOVEL, novel_targets
from lgm.callbacks.objects import object_dir, tolerate
from lgm.callbacks.pictures import resized, table, to_picture
from lgm.metrics import gather_items
from lgm.types import Prediction

log = logging.getLogger(__name__)

_SIZE = 192  # of each picture on a sheet, in pixels


class InputSheet(Callback):
    """Writes `<run_dir>/objects/<uid>/inputs.png` for each object that has no view besides its inputs:
    above what the network was given, below what it made of it, seen from there. Where all objects are
    such, there are no numbers, and `report.html` shows the sheets.

    failed: uids that could not be written; each is in the log with its reason.
    """

    def __init__(self) -> None:
        self.failed: list[str] = []
        self._sheets: list[tuple[str, str]] = []  # uid, and path beside the report
        self._all_unmeasured = True

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.failed, self._sheets, self._all_unmeasured = [], [], True

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        run_dir = Path(trainer.default_root_dir)
        unmeasured = (~novel_targets(outputs.batch).any(dim=1)).tolist()
        self._all_unmeasured &= all(unmeasured)
        for scene, uid in enumerate(outputs.batch.uids):
            if unmeasured[scene]:
                with tolerate("the sheet of inputs", uid, self.failed):
                    path = object_dir(run_dir, uid) / "inputs.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _sheet(outputs, scene).save(path)
                    self._sheets.append((uid, path.relative_to(run_dir).as_posix()))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sheets = sorted(set(gather_items(self._sheets)))
        alone = all(gather_items([self._all_unmeasured]))
        if trainer.is_global_zero and sheets and alone:
            path = Path(trainer.default_root_dir) / "report.html"
            path.write_text(_page(sheets), encoding="utf-8")
            log.info("report: %s", path)


def _sheet(prediction: Prediction, scene: int) -> Any:
    """Inputs over their re-rendered views, one column a view."""
    given = [resized(to_picture(image), _SIZE) for image in prediction.batch.target.images[scene]]
    made = [resized(to_picture(image), _SIZE) for image in prediction.render.images[scene]]
    return table([given, made], [f"view {view}" for view in prediction.batch.target.view_ids[scene].tolist()])


def _page(sheets: list[tuple[str, str]]) -> str:
    sections = "\n".join(
        f'<h2>{escape(uid)}</h2>\n<img src="{escape(quote(href))}" alt="inputs above, predictions below">'
        for uid, href in sheets
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Evaluation: no numbers</title></head>
<body style="font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto">
<h1>Evaluation</h1>
<p>Nothing was measured: {NOTHING_NOVEL}. Above: what the network was given; below: its Gaussians from the
same cameras.</p>
{sections}
</body>
</html>
"""
