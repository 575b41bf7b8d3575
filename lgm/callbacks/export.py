"""Files that evaluation writes for each object."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.callbacks.objects import object_dir, tolerate
from lgm.gaussians.ply import save_ply
from lgm.types import FRAMES, Prediction

log = logging.getLogger(__name__)


class ExportPly(Callback):
    """Writes `<run_dir>/objects/<uid>/gaussians.ply` for each object that is tested.

    min_opacity: fainter Gaussians are left out of the file.
    frame: "user", where the data's cameras are and as large as that makes the object; or "network", where
        the first input camera stands at (0, 0, radius).
    failed: uids that could not be written; each is in the log with its reason.
    """

    def __init__(self, min_opacity: float = 0.005, frame: str = "user") -> None:
        if frame not in FRAMES:
            raise ValueError(f"callbacks.export_ply.frame={frame!r} is not one of {', '.join(FRAMES)}")
        self.frame = frame
        self.min_opacity = min_opacity
        self.failed: list[str] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.failed = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for index, uid in enumerate(outputs.batch.uids):
            with tolerate("export of gaussians.ply", uid, self.failed):
                path = object_dir(trainer.default_root_dir, uid) / "gaussians.ply"
                save_ply(outputs.in_frame(self.frame, index), path, self.min_opacity)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.failed:
            log.warning("gaussians.ply is missing for %d objects; see above", len(self.failed))
