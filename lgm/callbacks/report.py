"""A page that shows what the numbers of an evaluation stand for."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lgm.callbacks.measure import Measure, novel_targets
from lgm.callbacks.objects import object_dir, tolerate
from lgm.callbacks.pictures import resized, spread_views, to_picture
from lgm.callbacks.report_page import ObjectPictures, Thumbnail, ViewPictures, page
from lgm.metrics import gather_items, nearest_input_index
from lgm.types import Batch, Prediction

log = logging.getLogger(__name__)


class Report(Callback):
    """Writes `<run_dir>/report.html`, one file that opens anywhere, and the pictures on it at full
    size as `<run_dir>/objects/<uid>/*.png`.

    The page holds small copies of its pictures inside itself, so that it can be mailed or moved away
    from its folder; each links to the full one, which is there as long as page and folder stay
    together. Numbers are those of `Measure`, which must be among the callbacks.

    max_objects: objects on the page, the first that arrive, worst first.
    num_views: target views of each, chosen around the object, behind and above included.
    thumbnail_size: longer side of the pictures inside the page, in pixels.
    """

    def __init__(self, max_objects: int = 32, num_views: int = 6, thumbnail_size: int = 192) -> None:
        self.max_objects = max_objects
        self.num_views = num_views
        self.thumbnail_size = thumbnail_size
        self.failed: list[str] = []
        self._objects: list[ObjectPictures] = []
        self._left = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "test":
            _measure_of(trainer)  # fail before the work, not after it

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._objects, self.failed = [], []
        # Each rank its share; the surplus is cut off when all are together.
        self._left = ceil(self.max_objects / trainer.world_size)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for scene, uid in enumerate(outputs.batch.uids[: self._left]):
            with tolerate("report", uid, self.failed):
                writer = _ObjectWriter(Path(trainer.default_root_dir), uid, self.thumbnail_size)
                self._objects.append(writer.write(outputs, scene, self.num_views))
        self._left = max(0, self._left - len(outputs.batch.uids))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        objects = {entry.uid: entry for entry in gather_items(self._objects)}
        measure = _measure_of(trainer)
        if trainer.is_global_zero and measure.summary is not None:
            run_dir = Path(trainer.default_root_dir)
            path = run_dir / "report.html"
            shown = [_with_turntable(entry, run_dir) for entry in list(objects.values())[: self.max_objects]]
            text = page(measure.summary, measure.rows, shown)
            path.write_text(text, encoding="utf-8")
            log.info("report: %s", path)


@dataclass(frozen=True)
class _ObjectWriter:
    """Writes one object's pictures, and keeps their small copies."""

    run_dir: Path
    uid: str
    thumbnail_size: int

    def write(self, prediction: Prediction, scene: int, num_views: int) -> ObjectPictures:
        batch, target = prediction.batch, prediction.batch.target
        inputs = [self._save(f"input_{i}", image) for i, image in enumerate(batch.input.images[scene])]
        nearest = nearest_input_index(batch.input.cameras, target.cameras)[scene].tolist()
        view_ids = target.view_ids[scene].tolist()
        views = [
            ViewPictures(
                view_id=view_ids[view],
                target=self._save(f"view_{view_ids[view]:03d}_target", target.images[scene, view]),
                prediction=self._save(
                    f"view_{view_ids[view]:03d}_prediction", prediction.render.images[scene, view]
                ),
                alpha=self._save(f"view_{view_ids[view]:03d}_alpha", prediction.render.alphas[scene, view]),
                nearest_input=inputs[nearest[view]],
            )
            for view in _shown_views(batch, scene, num_views)
        ]
        return ObjectPictures(uid=self.uid, inputs=inputs, views=views)

    def _save(self, name: str, image: Tensor) -> Thumbnail:
        picture = to_picture(image)
        path = object_dir(self.run_dir, self.uid) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        href = path.relative_to(self.run_dir).as_posix()
        return Thumbnail.of(resized(picture, self.thumbnail_size), href)


def _with_turntable(entry: ObjectPictures, run_dir: Path) -> ObjectPictures:
    """The same with the video of `Turntable`, where that was among the callbacks."""
    path = object_dir(run_dir, entry.uid) / "turntable.mp4"
    return replace(entry, turntable=path.relative_to(run_dir).as_posix()) if path.is_file() else entry


def _shown_views(batch: Batch, scene: int, num_views: int) -> list[int]:
    """Some target views from all around, of those that are measured."""
    novel = novel_targets(batch)[scene].nonzero()[:, 0].tolist()
    if not novel:
        return []
    return [novel[index] for index in spread_views(batch.target.cameras[scene, novel], num_views)]


def _measure_of(trainer: Trainer) -> Measure:
    for callback in trainer.callbacks:
        if isinstance(callback, Measure):
            return callback
    raise ValueError("callbacks.report shows the numbers of callbacks.measure; add measure, or drop report")
