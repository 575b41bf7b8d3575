"""The conversion of Gaussians to a textured mesh, all stages in order."""

from __future__ import annotations

from dataclasses import replace

import torch

from lgm.gaussians import Gaussians
from lgm.meshing.bake import bake
from lgm.meshing.capture import capture, framed, opaque
from lgm.meshing.density import with_fuzzy_parts
from lgm.meshing.fusion import fuse
from lgm.meshing.mesh import Mesh
from lgm.meshing.packages import check_packages
from lgm.meshing.refine import RefinementSettings
from lgm.meshing.refine import refine as refined
from lgm.meshing.stages import OnStage, Stages
from lgm.meshing.surface import cleaned, extract
from lgm.meshing.unwrap import unwrap
from lgm.rendering import make_renderer
from lgm.rendering.base import Renderer

# Pixels along a side of the views: rendering them takes most of the time on a CPU.
_SIZE = {"cpu": 256}
_SIZE_ELSEWHERE = 512
# Standard deviations by which the surface lies before the mean depth of a thick Gaussian: where images end.
_FRONTS = 3.0
_MIN_FACES, _MIN_TEXTURE, _MAX_TEXTURE = 100, 64, 8192


def gaussians_to_mesh(
    gaussians: Gaussians,
    faces: int = 20_000,
    texture: int = 1024,
    *,
    refine: bool | RefinementSettings = False,
    resolution: int = 256,
    num_views: int = 60,
    size: int | None = None,
    renderer: Renderer | None = None,
    on_stage: OnStage | None = None,
    stages: Stages | None = None,
) -> Mesh:
    """A textured mesh of one scene [1, N, …], in its frame, on the CPU.

    faces: about how many at most. texture: its width and height at most, in texels.
    refine: fit vertices and texture to images of the Gaussians, as these settings say or by default.
    resolution: voxels along the longest side of the object.
    num_views, size: views on the sphere around it, and their pixels along a side; by default 256 on a CPU,
        512 elsewhere.
    renderer: draws the views; by default the fastest for the Gaussians' device.
    on_stage: called with a stage's name and the fraction of it that is done.
    stages: keeps the stages' seconds; has an `on_stage` of its own.

    Raises ValueError in one line for options that make no mesh and for Gaussians without a surface, and
    ImportError where a package of the `mesh` extra is missing.
    """
    check_options(faces, texture)
    stages = stages or Stages(on_stage)
    renderer = renderer or make_renderer()
    with stages("frame"):
        scene = framed(gaussians)
    size = size or _SIZE.get(gaussians.means.device.type, _SIZE_ELSEWHERE)
    with stages("views") as progress:
        solid = opaque(scene.gaussians, renderer, size)
        views = capture(solid, renderer, num_views, size, deviations=_FRONTS, on_view=progress)
    with stages("fusion"):
        field = with_fuzzy_parts(fuse(views, resolution), solid)
    with stages("surface"):
        surface = cleaned(extract(field), faces)
    with stages("unwrap"):
        atlas = unwrap(surface, texture)
    with stages("texture"):
        mesh = bake(surface, atlas, field, views)
    if refine:
        settings = refine if isinstance(refine, RefinementSettings) else None
        with stages("refine") as progress:
            mesh = refined(mesh, scene.gaussians, renderer, settings, silhouettes=solid, on_step=progress)
    return replace(mesh, vertices=scene.restore(mesh.vertices)).to("cpu")


def check_options(faces: int, texture: int) -> None:
    """Raises ValueError in one line for values that make no mesh, and ImportError for missing packages."""
    if faces < _MIN_FACES:
        raise ValueError(f"faces={faces} must be at least {_MIN_FACES}")
    if not _MIN_TEXTURE <= texture <= _MAX_TEXTURE:
        raise ValueError(f"texture={texture} must be between {_MIN_TEXTURE} and {_MAX_TEXTURE} texels")
    check_packages()


def default_device() -> torch.device:
    """Where a command converts: the GPU that PyTorch sees, or the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")
