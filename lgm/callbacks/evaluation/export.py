"""The .ply written for each evaluated object."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule

from lgm.callbacks.evaluation.objects import ObjectHook
from lgm.cameras.conventions import turn_from_y_up
from lgm.cameras.similarity import moved
from lgm.files import atomic, write_text
from lgm.gaussians.compressed_ply import packer, save_compressed_ply
from lgm.gaussians.ply import rest_fields, save_ply
from lgm.reports import input_cameras
from lgm.types import FRAMES, Prediction


class ExportPly(ObjectHook):
    """Writes `<run_dir>/objects/<uid>/gaussians.ply` for each object that is tested, and where its inputs
    stand about it, `input_cameras.json`, which the viewer draws.

    frame: "user", where the data's cameras are and as large as that makes the object; or "network", where
        the first input camera stands at (0, 0, radius). `up` turns either.
    min_opacity, up, sh_degree, normals: see `lgm.gaussians.ply.save_ply`.
    compressed: write `gaussians.compressed.ply` too, a quarter of the size, for SuperSplat, PlayCanvas
        and the viewers that follow them; needs gsplat. It has neither normals nor spherical harmonics.
    max_objects: only for the first so many of each process; None is for all.
    """

    what = "export of gaussians.ply"

    def __init__(
        self,
        min_opacity: float = 0.005,
        up: str = "y",
        sh_degree: int = 0,
        normals: bool = False,
        compressed: bool = False,
        max_objects: int | None = None,
        frame: str = "user",
    ) -> None:
        super().__init__(max_objects)
        if frame not in FRAMES:
            raise ValueError(f"callbacks.export_ply.frame={frame!r} is not one of {', '.join(FRAMES)}")
        # A mistake is told before the work, not after it.
        turn_from_y_up(up)
        rest_fields(sh_degree)
        if compressed:
            packer()
        self.min_opacity = min_opacity
        self.up = up
        self.sh_degree = sh_degree
        self.normals = normals
        self.compressed = compressed
        self.frame = frame

    def write(self, module: LightningModule, prediction: Prediction, scene: int, folder: Path) -> None:
        """gaussians.ply, its compressed twin where requested, and the input cameras in the same frame."""
        gaussians = prediction.in_frame(self.frame, scene)
        with atomic(folder / "gaussians.ply") as path:
            save_ply(gaussians, path, self.min_opacity, self.up, self.sh_degree, self.normals)
        inputs, to_user = prediction.batch.input.cameras[scene].to("cpu"), prediction.batch.to_user
        if self.frame == "user" and to_user is not None:
            inputs = moved(inputs, to_user[scene].to("cpu"))
        write_text(folder / input_cameras.FILE_NAME, input_cameras.to_text(inputs))
        if self.compressed:
            with atomic(folder / "gaussians.compressed.ply") as path:
                save_compressed_ply(gaussians, path, self.min_opacity, self.up)
