"""The evaluation report: a page that shows the images behind the numbers."""

from __future__ import annotations

import base64
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from lgm.callbacks.evaluation.measure import NOTHING_NOVEL, Measure
from lgm.callbacks.evaluation.objects import object_dir, tolerate
from lgm.callbacks.evaluation.shown import ShownObject
from lgm.callbacks.order import Stage
from lgm.files import write_text
from lgm.metrics import gather_items
from lgm.metrics.table import ViewTable
from lgm.reports.evaluation_page import NUM_WORST, page, page_without_numbers
from lgm.reports.images import resized
from lgm.reports.shown_object import ObjectImages, Thumbnail
from lgm.types import Prediction

log = logging.getLogger(__name__)

_VIDEO_BYTES = 3 << 20  # of all videos inside a page; others are shown from beside it
_MESH_WIDTH = 1100  # pixels of the image of a mesh's six sides
# What other callbacks write of an object, and what a page calls it.
_FILES = {
    "gaussians.ply": "gaussians.ply",
    "gaussians.compressed.ply": "gaussians.compressed.ply",
    "mesh.glb": "mesh.glb",
    "mesh.obj": "mesh.obj",
    "mesh.ply": "mesh.ply",
    "turntable.mp4": "turntable.mp4",
    "turntable.gif": "turntable.gif",
    "inputs.png": "inputs.png",
    "mesh.png": "sides",
    "mesh.json": "numbers",
    "mesh.packed": "packed",
}


class Report(Callback):
    """Writes `<run_dir>/report.html`, one file that opens anywhere, and the images on it at full
    size as `<run_dir>/objects/<uid>/*.png`.

    The page holds small copies of its images inside itself, and Gaussians that turn, so that it can be mailed
    or moved away from its folder; each image links to the full one, which is there as long as page and folder
    stay together. Numbers are those of `Measure`, which must be among the callbacks. Where nothing could be
    measured, it shows the objects from their inputs' cameras and from new ones.

    max_objects: objects on the page: the worst ten, and of the others the first that arrive; 0 shows
        numbers alone. An object of which nothing was measured is on none, unless all are such.
    num_views: target views of each, chosen around the object, behind and above included.
    thumbnail_size: longer side of the images inside the page, in pixels; none is enlarged.
    max_orbits: objects whose Gaussians turn in the page, the worst first; a page holds
        some 0.5 MB of each, and as much of its mesh.
    provenance: what made the page, by its label.
    """

    stage = Stage.REPORT

    def __init__(
        self,
        max_objects: int = 32,
        num_views: int = 6,
        thumbnail_size: int = 192,
        max_orbits: int = 12,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        for name, value in (("max_objects", max_objects), ("max_orbits", max_orbits)):
            if value < 0:
                raise ValueError(f"callbacks.report.{name}={value} must be at least 0")
        self.max_objects = max_objects
        self.num_views = num_views
        self.thumbnail_size = thumbnail_size
        self.max_orbits = max_orbits
        self.provenance = dict(provenance or {})
        self.failed: list[str] = []
        self._first: list[ShownObject] = []
        self._worst: list[ShownObject] = []
        self._unmeasured: list[ShownObject] = []
        self._started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """ValueError where no `Measure` is among the callbacks before it."""
        if stage == "test":
            _measure_of(trainer)  # fail before the work, not after it

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the objects of an earlier test."""
        self._first, self._worst, self._unmeasured, self.failed = [], [], [], []
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
        """Keep images of the first objects and of those that are the worst so far."""
        if not self.max_objects:
            return
        # This waits for the device: which objects are the worst is known at the end alone, and by then
        # their images are gone.
        values = _measure_of(trainer).measurement.last_psnr().tolist()
        for scene, (uid, value) in enumerate(zip(outputs.batch.uids, values, strict=True)):
            with tolerate("report", uid, self.failed):
                if math.isnan(value):  # it has no views besides its inputs
                    self._keep_unmeasured(pl_module, outputs, scene)
                else:
                    self._keep(outputs, scene, value)

    def _keep(self, prediction: Prediction, scene: int, psnr: float) -> None:
        is_first = len(self._first) < self.max_objects
        is_worst = len(self._worst) < self._num_worst or psnr < self._worst[-1].psnr
        if not is_first and not is_worst:
            return
        shown = ShownObject.measured(prediction, scene, self.num_views, psnr, self.max_orbits > 0)
        self._first += [shown] if is_first else []
        worst = sorted([*self._worst, shown], key=lambda entry: entry.psnr)
        self._worst = worst[: self._num_worst]

    def _keep_unmeasured(self, module: LightningModule, prediction: Prediction, scene: int) -> None:
        if self._first or len(self._unmeasured) >= self.max_objects:
            return
        with_orbit = len(self._unmeasured) < self.max_orbits
        shown = ShownObject.unmeasured(prediction, scene, module.renderer, with_orbit)
        self._unmeasured.append(shown)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the objects over all ranks, write their images, and the page on rank 0."""
        measure = _measure_of(trainer)
        if measure.summary is not None:
            chosen = self._chosen([entry.uid for entry in gather_items(self._first)], measure.table)
            objects = self._written(trainer, chosen, [*self._first, *self._worst])
            if trainer.is_global_zero:
                self._write(trainer, page(measure.summary, measure.table, objects, self._made_by()))
        elif measure.num_seen:
            chosen = sorted({entry.uid for entry in gather_items(self._unmeasured)})[: self.max_objects]
            objects = self._written(trainer, chosen, self._unmeasured)
            if trainer.is_global_zero:
                text = page_without_numbers(NOTHING_NOVEL, objects, measure.num_seen, self._made_by())
                self._write(trainer, text)
        self._first, self._worst, self._unmeasured = [], [], []

    def _written(self, trainer: Trainer, chosen: list[str], mine: list[ShownObject]) -> list[ObjectImages]:
        """The chosen objects of all ranks, in that order, each written by the rank that has it."""
        run_dir, by_uid, written = Path(trainer.default_root_dir), {entry.uid: entry for entry in mine}, []
        for index, uid in enumerate(chosen):
            if uid in by_uid:
                with tolerate("report", uid, self.failed):
                    entry = by_uid[uid] if index < self.max_orbits else replace(by_uid[uid], orbit=None)
                    written.append(entry.write(run_dir, self.thumbnail_size))
        objects = {entry.uid: entry for entry in gather_items(written)}
        entries = [_with_files(objects[uid], run_dir, self._started) for uid in chosen if uid in objects]
        return _with_videos(entries, run_dir)

    def _made_by(self) -> dict[str, str]:
        now = datetime.now(timezone.utc)
        return {**self.provenance, "date": f"{now:%Y-%m-%d %H:%M} UTC"}

    def _write(self, trainer: Trainer, text: str) -> None:
        path = Path(trainer.default_root_dir) / "report.html"
        write_text(path, text)
        log.info("report: %s (%.1f MB)", path, len(text) / 1e6)

    @property
    def _num_worst(self) -> int:
        return min(NUM_WORST, self.max_objects)

    def _chosen(self, first: list[str], table: ViewTable) -> list[str]:
        """Which objects are shown: the same on all ranks."""
        means = {uid: views.columns["psnr"].mean() for uid, views in table.by_object()}
        # From the table of all ranks, so that every rank chooses the same.
        worst = sorted(means, key=lambda uid: means[uid])[: self._num_worst]
        return list(dict.fromkeys([*worst, *first]))[: self.max_objects]


def _with_files(entry: ObjectImages, run_dir: Path, since: float) -> ObjectImages:
    """The same with what other callbacks wrote since then; earlier files show other weights."""
    folder = object_dir(run_dir, entry.uid)
    paths = {label: folder / name for name, label in _FILES.items()}
    paths = {k: path for k, path in paths.items() if path.is_file() and path.stat().st_mtime >= since}
    files = {label: path.relative_to(run_dir).as_posix() for label, path in paths.items()}
    sides, numbers = files.pop("sides", None), files.pop("numbers", None)
    mesh = mesh_orbit = None
    if sides is not None:
        with Image.open(paths["sides"]) as image:
            mesh = Thumbnail.of(resized(image.convert("RGB"), min(_MESH_WIDTH, image.width)), sides)
    mesh_numbers = None if numbers is None else json.loads(paths["numbers"].read_text(encoding="utf-8"))
    if files.pop("packed", None) and entry.orbit is not None and mesh_numbers is not None:
        mesh_orbit = entry.orbit.of_mesh(paths["packed"].read_bytes(), mesh_numbers["faces"])
    return replace(
        entry,
        turntable=files.get("turntable.mp4"),
        mesh=mesh,
        mesh_orbit=mesh_orbit,
        mesh_numbers=mesh_numbers,
        files=files,
    )


def _with_videos(entries: list[ObjectImages], run_dir: Path) -> list[ObjectImages]:
    """The same with videos inside the page, of as many objects as there is room for."""
    left, result = _VIDEO_BYTES, []
    for entry in entries:
        if entry.turntable is not None and (size := (run_dir / entry.turntable).stat().st_size) <= left:
            left -= size
            content = base64.b64encode((run_dir / entry.turntable).read_bytes()).decode("ascii")
            entry = replace(entry, turntable=f"data:video/mp4;base64,{content}")
        result.append(entry)
    return result


def _measure_of(trainer: Trainer) -> Measure:
    for callback in trainer.callbacks:
        if isinstance(callback, Measure):
            return callback
        if isinstance(callback, Report):  # it asks what has just been measured
            break
    raise ValueError(
        "callbacks.report shows the numbers of callbacks.measure; add measure before it, or drop report"
    )
