"""The .ply files that evaluation writes for each object."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule

from lgm.callbacks.objects import ObjectHook, whole
from lgm.cameras.conventions import turn_from_y_up
from lgm.gaussians.compressed_ply import packer, save_compressed_ply
from lgm.gaussians.ply import rest_fields, save_ply
from lgm.types import Prediction


class ExportPly(ObjectHook):
    """Writes `<run_dir>/objects/<uid>/gaussians.ply` for each object that is tested.

    min_opacity, up, sh_degree, normals: as of `lgm.gaussians.ply.save_ply`.
    compressed: write `gaussians.compressed.ply` too, a quarter of the size, for SuperSplat, PlayCanvas
        and the viewers that follow them; needs gsplat. It has neither normals nor higher harmonics.
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
    ) -> None:
        super().__init__(max_objects)
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

    def write(self, module: LightningModule, prediction: Prediction, scene: int, folder: Path) -> None:
        gaussians = prediction.gaussians.scene(scene)
        with whole(folder / "gaussians.ply") as path:
            save_ply(gaussians, path, self.min_opacity, self.up, self.sh_degree, self.normals)
        if self.compressed:
            with whole(folder / "gaussians.compressed.ply") as path:
                save_compressed_ply(gaussians, path, self.min_opacity, self.up)
