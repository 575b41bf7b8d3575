"""A textured mesh per object, and its fidelity: PSNR, SSIM, Chamfer distance and F-score."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lgm.callbacks.evaluation.objects import ObjectHook
from lgm.cameras import Cameras
from lgm.cameras.trajectories import GOLDEN_ANGLE_DEG
from lgm.cameras.upright import tilt
from lgm.files import atomic, write_text
from lgm.gaussians import Gaussians
from lgm.meshing import Mesh, Stages, gaussians_to_mesh, save_mesh
from lgm.meshing.convert import check_options
from lgm.meshing.files import check_suffix
from lgm.meshing.measures import THRESHOLD, surface_distance
from lgm.meshing.rasterizer import draw
from lgm.meshing.topology import is_watertight
from lgm.metrics import gather_items
from lgm.metrics.image import psnr, ssim
from lgm.reports.images import mosaic, to_image
from lgm.reports.meshes.packing import packed
from lgm.types import FRAMES, Batch, Prediction

log = logging.getLogger(__name__)

IMAGE_NAME, NUMBERS_NAME, PACKED_NAME = "mesh.png", "mesh.json", "mesh.packed"
# Elevations and azimuths in degrees of the six sides: front, right, back, left, top, bottom.
_SIDES = ((15, 15, 15, 15, 89, -89), (20, 110, 200, 290, 0, 0))
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class MeshNumbers:
    """Measures of one object's mesh, as `metrics.json` has them.

    psnr, ssim: of its images against the Gaussians'. true_psnr, true_ssim: against the target views.
    chamfer, f_score: against points of the true surface, in units of its size and at 1 % of it; None where
        the data have none.
    """

    psnr: float
    ssim: float
    true_psnr: float
    true_ssim: float
    watertight: bool
    faces: int
    bytes: int
    seconds: float
    chamfer: float | None = None
    f_score: float | None = None


class WriteMesh(ObjectHook):
    """Writes `mesh.glb`, `mesh.png` (six sides), `mesh.packed` (what the report turns) and `mesh.json` (its
    numbers) into `<run_dir>/objects/<uid>` for each object that is tested, and adds `mesh` to
    `metrics.json`: medians over the objects, and each object's numbers.

    faces: about how many at most. texture: width and height in texels.
    refine: fit vertices and texture to images of the Gaussians.
    suffix: glb, obj (with .mtl and .png) or ply (vertex colours).
    frame: "user", where the data's cameras are; or "network".
    num_views, size: images of `size`² pixels, elevations from -30° to 60°, in which mesh and Gaussians are
        compared.
    max_objects: only for the first so many of each process; None is for all.
    """

    what = "mesh"

    def __init__(
        self,
        faces: int = 20_000,
        texture: int = 1024,
        refine: bool = False,
        suffix: str = "glb",
        frame: str = "user",
        num_views: int = 24,
        size: int = 512,
        max_objects: int | None = None,
    ) -> None:
        super().__init__(max_objects)
        if frame not in FRAMES:
            raise ValueError(f"callbacks.mesh.frame={frame!r} is not one of {', '.join(FRAMES)}")
        for name, value in (("num_views", num_views), ("size", size)):
            if value < 1:
                raise ValueError(f"callbacks.mesh.{name}={value} must be at least 1")
        # A mistake is told before the work, not after it.
        check_options(faces, texture)
        check_suffix(f"mesh.{suffix}")
        self.faces = faces
        self.texture = texture
        self.refine = refine
        self.suffix = suffix
        self.frame = frame
        self.num_views = num_views
        self.size = size
        self.numbers: dict[str, MeshNumbers] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the numbers of an earlier test."""
        super().on_test_start(trainer, pl_module)
        self.numbers = {}

    # Out of Lightning's inference mode, whose tensors could not be refined.
    @torch.inference_mode(False)
    @torch.no_grad()
    def write(self, module: LightningModule, prediction: Prediction, scene: int, folder: Path) -> None:
        """mesh.<suffix>, mesh.png, mesh.packed and mesh.json of one object."""
        batch, stages = prediction.batch, Stages()
        gaussians = prediction.gaussians.scene(scene).to(torch.float32, copy=True)
        mesh = gaussians_to_mesh(
            gaussians,
            self.faces,
            self.texture,
            refine=self.refine,
            renderer=module.renderer,
            stages=stages,
        )
        path = folder / f"mesh.{self.suffix}"
        with stages("write"):
            save_mesh(self._in_frame(mesh, prediction, scene, self.frame), path)
        with atomic(folder / PACKED_NAME) as partial:
            partial.write_bytes(packed(_upright(mesh, batch, scene)))
        # Rendered beside the Gaussians; the file is written already.
        mesh = mesh.to(gaussians.means.device)
        with atomic(folder / IMAGE_NAME) as partial:
            mosaic(_sides(mesh), columns=6).save(partial, format="PNG")
        own_psnr, own_ssim = self._against_gaussians(module, mesh, gaussians)
        true_psnr, true_ssim = _against_targets(mesh, batch, scene)
        numbers = MeshNumbers(
            psnr=own_psnr,
            ssim=own_ssim,
            true_psnr=true_psnr,
            true_ssim=true_ssim,
            watertight=is_watertight(mesh.surface.to("cpu")),
            faces=mesh.num_faces,
            bytes=path.stat().st_size,
            seconds=round(sum(stages.seconds.values()), 3),
            **self._against_surface(mesh, prediction, scene),
        )
        self.numbers[batch.uids[scene]] = numbers
        write_text(folder / NUMBERS_NAME, json.dumps(asdict(numbers), indent=2, allow_nan=False) + "\n")
        log.info("mesh of %s: psnr=%.2f faces=%d in %s", batch.uids[scene], own_psnr, mesh.num_faces, stages)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the meshes' numbers of all ranks to metrics.json."""
        super().on_test_end(trainer, pl_module)
        objects = dict(sorted(gather_items(list(self.numbers.items()))))
        path = Path(trainer.default_root_dir) / "metrics.json"
        # `Measure` has written it once the test epoch ended, whatever the callbacks' order.
        if not trainer.is_global_zero or not objects or not path.is_file():
            return
        # Read, extended and written again: `Measure` knows nothing of meshes.
        metrics = json.loads(path.read_text(encoding="utf-8"))
        metrics["mesh"] = summary(objects, self.num_views, self.size)
        write_text(path, json.dumps(metrics, indent=2, allow_nan=False) + "\n")

    def _against_surface(self, mesh: Mesh, prediction: Prediction, scene: int) -> dict[str, float]:
        """Chamfer distance and F-score, where the data have points of the true surface."""
        surfaces = prediction.batch.surfaces
        truth = surfaces[scene] if surfaces else None
        if truth is None:
            return {}
        distance = surface_distance(self._in_frame(mesh.to("cpu"), prediction, scene, "user").surface, truth)
        return {"chamfer": distance.chamfer, "f_score": distance.f_score}

    def _in_frame(self, mesh: Mesh, prediction: Prediction, scene: int, frame: str) -> Mesh:
        to_user = prediction.batch.to_user
        if frame == "network" or to_user is None:
            return mesh
        similarity = to_user[scene].double().cpu()
        vertices = mesh.vertices.double() @ similarity[:3, :3].T + similarity[:3, 3]
        return replace(mesh, vertices=vertices.float())

    def _against_gaussians(
        self, module: LightningModule, mesh: Mesh, gaussians: Gaussians
    ) -> tuple[float, float]:
        """Mean PSNR and SSIM over views, over white."""
        views = torch.arange(self.num_views)
        # With golden-angle azimuths: all sides, a few from below.
        elevation = torch.linspace(-30, 60, self.num_views)
        cameras = Cameras.orbit(elevation, views * GOLDEN_ANGLE_DEG % 360).to(gaussians.means.device)
        values = []
        for view in range(self.num_views):
            camera = cameras[view : view + 1]
            target = module.renderer(gaussians, camera[None], self.size, self.size).images[0].clamp(0, 1)
            values.append(_compared(_drawn(mesh, camera, self.size), target))
        return _means(values)


def summary(objects: dict[str, MeshNumbers], num_views: int, size: int) -> dict:
    """Medians over objects, how many are watertight, and each object's numbers."""
    rows = {uid: asdict(numbers) for uid, numbers in objects.items()}
    names = [name for name in MeshNumbers.__annotations__ if name != "watertight"]
    medians = {name: _median([row[name] for row in rows.values()]) for name in names}
    num_surfaces = sum(row["f_score"] is not None for row in rows.values())
    compared = f"points of the surfaces of {num_surfaces} objects; F-score at {THRESHOLD:.0%} of their size"
    return {
        "num_objects": len(rows),
        "compared": f"{num_views} views of {size}x{size} pixels over white, elevations -30 to 60 degrees",
        "compared_surfaces": compared if num_surfaces else "none: the data have no points of true surfaces",
        "median": medians,
        "num_watertight": sum(row["watertight"] for row in rows.values()),
        "objects": rows,
    }


def _median(values: list[float | None]) -> float | None:
    """Of the values that there are."""
    numbers = [float(value) for value in values if value is not None]
    return float(torch.tensor(numbers, dtype=torch.float64).median()) if numbers else None


def _against_targets(mesh: Mesh, batch: Batch, scene: int) -> tuple[float, float]:
    """Mean PSNR and SSIM over the target views, at their size."""
    images, cameras = batch.target.images[scene], batch.target.cameras[scene]
    return _means(
        [
            _compared(_drawn(mesh, cameras[i : i + 1], images.shape[-1]), images[i : i + 1])
            for i in range(len(images))
        ]
    )


def _upright(mesh: Mesh, batch: Batch, scene: int) -> Mesh:
    """In the network's frame with the object's up at +y, as the report shows the Gaussians."""
    if batch.up is None:
        return mesh
    to_world = tilt(batch.up[scene].cpu()).to(mesh.vertices)
    return replace(mesh, vertices=mesh.vertices @ to_world)  # by the inverse, row by row


def _drawn(mesh: Mesh, cameras: Cameras, size: int) -> Float[Tensor, "V 3 H W"]:
    return draw(mesh, cameras, size, size, supersampling=_SUPERSAMPLING).images[0]


def _compared(images: Tensor, targets: Tensor) -> tuple[float, float]:
    return float(psnr(images, targets).mean()), float(ssim(images, targets).mean())


def _means(values: list[tuple[float, float]]) -> tuple[float, float]:
    first, second = torch.tensor(values, dtype=torch.float64).mean(0).tolist()
    return first, second


def _sides(mesh: Mesh) -> list:
    cameras = Cameras.orbit(*_SIDES).to(mesh.vertices.device)
    return [to_image(image) for image in _drawn(mesh, cameras, 256)]
