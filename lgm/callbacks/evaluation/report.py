"""A page that shows what the numbers of an evaluation stand for."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from lgm.callbacks.evaluation.measure import Measure
from lgm.callbacks.evaluation.objects import object_dir, tolerate
from lgm.callbacks.evaluation.views import view_name
from lgm.callbacks.order import Stage
from lgm.files import atomic, write_text
from lgm.metrics import gather_items, nearest_input_index, novel_targets
from lgm.metrics.table import ViewTable
from lgm.reports.evaluation_page import NUM_WORST, ObjectImages, Thumbnail, ViewImages, page
from lgm.reports.images import resized, spread_views, to_image
from lgm.types import Batch, Prediction

log = logging.getLogger(__name__)


class Report(Callback):
    """Writes `<run_dir>/report.html`, one file that opens anywhere, and the images on it at full
    size as `<run_dir>/objects/<uid>/*.png`.

    The page holds small copies of its images inside itself, so that it can be mailed or moved away
    from its folder; each links to the full one, which is there as long as page and folder stay
    together. Numbers are those of `Measure`, which must be among the callbacks.

    max_objects: objects on the page: the worst ten, and of the others the first that arrive; 0 shows
        numbers alone. An object of which nothing was measured is on none.
    num_views: target views of each, chosen around the object, behind and above included.
    thumbnail_size: longer side of the images inside the page, in pixels.
    """

    stage = Stage.REPORT

    def __init__(self, max_objects: int = 32, num_views: int = 6, thumbnail_size: int = 192) -> None:
        if max_objects < 0:
            raise ValueError(f"callbacks.report.max_objects={max_objects} must be at least 0")
        self.max_objects = max_objects
        self.num_views = num_views
        self.thumbnail_size = thumbnail_size
        self.failed: list[str] = []
        self._first: list[_ShownObject] = []
        self._worst: list[_ShownObject] = []
        self._started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "test":
            _measure_of(trainer)  # fail before the work, not after it

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first, self._worst, self.failed = [], [], []
        self._started = time.time()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self.max_objects:
            return
        # This waits for the device: which objects are the worst is known at the end alone, and by then
        # their images are gone.
        values = _measure_of(trainer).measurement.last_psnr().tolist()
        for scene, (uid, value) in enumerate(zip(outputs.batch.uids, values, strict=True)):
            if math.isnan(value):  # it has no views besides its inputs
                continue
            is_first = len(self._first) < self.max_objects
            is_worst = len(self._worst) < self._num_worst or value < self._worst[-1].psnr
            if not is_first and not is_worst:
                continue
            with tolerate("report", uid, self.failed):
                shown = _ShownObject.of(outputs, scene, self.num_views, value)
                self._first += [shown] if is_first else []
                worst = sorted([*self._worst, shown], key=lambda entry: entry.psnr)
                self._worst = worst[: self._num_worst]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        measure = _measure_of(trainer)
        if measure.table is None or measure.summary is None:
            return
        run_dir = Path(trainer.default_root_dir)
        chosen = self._chosen([entry.uid for entry in gather_items(self._first)], measure.table)
        mine = {entry.uid: entry for entry in [*self._first, *self._worst]}
        written = []
        for uid in chosen:
            if uid in mine:
                with tolerate("report", uid, self.failed):
                    written.append(mine[uid].write(run_dir, self.thumbnail_size))
        objects = {entry.uid: entry for entry in gather_items(written)}
        self._first, self._worst = [], []
        if trainer.is_global_zero:
            path = run_dir / "report.html"
            shown = [_with_files(entry, run_dir, self._started) for entry in objects.values()]
            write_text(path, page(measure.summary, measure.table, shown))
            log.info("report: %s", path)

    @property
    def _num_worst(self) -> int:
        return min(NUM_WORST, self.max_objects)

    def _chosen(self, first: list[str], table: ViewTable) -> list[str]:
        """Which objects are shown: the same on all ranks."""
        means = {uid: views.columns["psnr"].mean() for uid, views in table.by_object()}
        worst = sorted(means, key=lambda uid: means[uid])[: self._num_worst]
        return list(dict.fromkeys([*worst, *first]))[: self.max_objects]


@dataclass(frozen=True)
class _ShownView:
    view_id: int
    target: Image.Image
    prediction: Image.Image
    alpha: Image.Image
    nearest_input: int


@dataclass(frozen=True)
class _ShownObject:
    """One object's images, off the device: they are written when it is known that they are wanted."""

    uid: str
    psnr: float
    inputs: list[Image.Image]
    views: list[_ShownView]

    @classmethod
    def of(cls, prediction: Prediction, scene: int, num_views: int, psnr: float) -> _ShownObject:
        batch, target = prediction.batch, prediction.batch.target
        nearest = nearest_input_index(batch.input.cameras, target.cameras)[scene].tolist()
        view_ids = target.view_ids[scene].tolist()
        views = [
            _ShownView(
                view_id=view_ids[view],
                target=to_image(target.images[scene, view]),
                prediction=to_image(prediction.render.images[scene, view]),
                alpha=to_image(prediction.render.alphas[scene, view]),
                nearest_input=nearest[view],
            )
            for view in _shown_views(batch, scene, num_views)
        ]
        return cls(batch.uids[scene], psnr, [to_image(x) for x in batch.input.images[scene]], views)

    def write(self, run_dir: Path, thumbnail_size: int) -> ObjectImages:
        """Write the images at full size, and give their small copies."""
        folder = object_dir(run_dir, self.uid)
        folder.mkdir(parents=True, exist_ok=True)

        def save(name: str, image: Image.Image) -> Thumbnail:
            path = folder / f"{name}.png"
            with atomic(path) as partial:
                image.save(partial, format="PNG")
            return Thumbnail.of(resized(image, thumbnail_size), path.relative_to(run_dir).as_posix())

        inputs = [save(f"input_{i}", image) for i, image in enumerate(self.inputs)]
        views = [
            ViewImages(
                view_id=view.view_id,
                target=save(f"{view_name(view.view_id)}_target", view.target),
                prediction=save(f"{view_name(view.view_id)}_prediction", view.prediction),
                alpha=save(f"{view_name(view.view_id)}_alpha", view.alpha),
                nearest_input=inputs[view.nearest_input],
            )
            for view in self.views
        ]
        return ObjectImages(uid=self.uid, inputs=inputs, views=views)


def _with_files(entry: ObjectImages, run_dir: Path, since: float) -> ObjectImages:
    """The same with the video of `Turntable` and the images of `WriteMesh` that were written since then;
    earlier ones show other weights."""
    names = {"turntable": "turntable.mp4", "mesh": "mesh.png"}
    paths = {field: object_dir(run_dir, entry.uid) / name for field, name in names.items()}
    written: dict[str, Any] = {
        field: path.relative_to(run_dir).as_posix()
        for field, path in paths.items()
        if path.is_file() and path.stat().st_mtime >= since
    }
    numbers = object_dir(run_dir, entry.uid) / "mesh.json"
    if "mesh" in written and numbers.is_file():
        written["mesh_numbers"] = json.loads(numbers.read_text(encoding="utf-8"))
    return replace(entry, **written)


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
        if isinstance(callback, Report):  # it asks what has just been measured
            break
    raise ValueError(
        "callbacks.report shows the numbers of callbacks.measure; add measure before it, or drop report"
    )
