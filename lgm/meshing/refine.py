"""Mesh refinement by inverse rendering: vertices and texture fitted to renders of the Gaussians.

Vertices move by offsets and faces stay, so that a watertight mesh stays watertight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import Cameras
from lgm.cameras.trajectories import GOLDEN_ANGLE_DEG
from lgm.gaussians import Gaussians
from lgm.meshing.capture import DISTANCE, FOV_Y_DEG
from lgm.meshing.mesh import Mesh
from lgm.meshing.refine_rasterizers import RefinementRasterizer, make_rasterizer
from lgm.meshing.regularization import Regularization
from lgm.rendering.base import Renderer
from lgm.rendering.meshes.projection import pixel_matrices

# Every so many views, one from anywhere on the sphere: tops and bottoms are not left behind.
_ANYWHERE = 6
_VIEWS_PER_CALL = 4  # of the Gaussians' renderer


@dataclass(frozen=True)
class RefinementSettings:
    """How long and from where a mesh is refined.

    steps: of Adam, each on `views_per_step` of `num_views` images of size² pixels.
    elevations_deg: the lowest and the highest of most views; azimuths are all around.
    offset_rate: learning rate of the offsets, in mean edges a step; texture_rate: of the texture's values.
    alpha_weight, laplacian_weight, normal_weight: against the mean squared error of colours. A weak Laplacian
        lets vertices follow outlines; a weak normal weight, or fast offsets, roughens flat faces.
    """

    steps: int = 300
    num_views: int = 64
    views_per_step: int = 8
    size: int = 512
    elevations_deg: tuple[float, float] = (-30.0, 60.0)
    distance: float = DISTANCE
    fov_y_deg: float = FOV_Y_DEG
    offset_rate: float = 0.03
    texture_rate: float = 0.01
    alpha_weight: float = 0.5
    laplacian_weight: float = 0.002
    normal_weight: float = 0.01

    def __post_init__(self) -> None:
        for name in ("steps", "num_views", "views_per_step", "size"):
            if getattr(self, name) < 1:
                raise ValueError(f"refinement {name}={getattr(self, name)} must be at least 1")

    @classmethod
    def for_device(cls, device: torch.device) -> RefinementSettings:
        """The defaults on an accelerator; on a CPU fewer steps of fewer and smaller images."""
        return cls(steps=100, num_views=32, views_per_step=1, size=256) if device.type == "cpu" else cls()


def refine(
    mesh: Mesh,
    gaussians: Gaussians,
    renderer: Renderer,
    settings: RefinementSettings | None = None,
    rasterizer: RefinementRasterizer | None = None,
    silhouettes: Gaussians | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Mesh:
    """The mesh with its vertices and texture fitted to its Gaussians [1, N, …].

    Both in the unit frame: within about 0.6 of the origin. The result is on the Gaussians' device.

    rasterizer: by default nvdiffrast's CUDA one where it is installed, else our own.
    silhouettes: the same Gaussians made opaque, of which alphas are taken: a mesh has no others, and
        would shrink where it is fitted to a see-through object's. By default the Gaussians' own.
    on_step: called with the number of steps done and their total.
    """
    device = gaussians.means.device
    # An evaluation's tensors are of inference mode, and those have no gradients: their copies do.
    with torch.inference_mode(False), torch.enable_grad():
        tensors = {field.name: getattr(mesh, field.name).to(device).clone() for field in fields(mesh)}
        mesh = Mesh(**tensors)
        if not mesh.num_faces:
            return mesh
        settings = settings or RefinementSettings.for_device(device)
        rasterizer = rasterizer or make_rasterizer(mesh)
        cameras = refinement_cameras(settings).to(device)
        matrices = pixel_matrices(cameras[None], settings.size, settings.size)
        targets = _targets(gaussians, silhouettes, renderer, cameras, settings)
        return _fit(mesh, targets, matrices, rasterizer, settings, on_step)


def refinement_cameras(settings: RefinementSettings) -> Cameras:
    """Cameras [C]: equal steps in sin(elevation), azimuths by the golden angle."""
    low, high = (math.sin(math.radians(angle)) for angle in settings.elevations_deg)
    fraction = (torch.arange(settings.num_views) + 0.5) / settings.num_views
    sine = low + (high - low) * fraction
    anywhere = torch.arange(settings.num_views) % _ANYWHERE == _ANYWHERE - 1
    sine = torch.where(anywhere, (2 * fraction - 1) * math.sin(math.radians(85)), sine)
    azimuth = torch.arange(settings.num_views) * GOLDEN_ANGLE_DEG % 360
    return Cameras.orbit(sine.asin().rad2deg(), azimuth, settings.distance, settings.fov_y_deg)


def _targets(
    gaussians: Gaussians,
    silhouettes: Gaussians | None,
    renderer: Renderer,
    cameras: Cameras,
    settings: RefinementSettings,
) -> Float[Tensor, "C H W 4"]:
    """Colours over white, and alphas of the silhouettes."""
    targets = []
    with torch.no_grad():
        for start in range(0, settings.num_views, _VIEWS_PER_CALL):
            some = cameras[start : start + _VIEWS_PER_CALL][None]
            output = renderer(gaussians, some, settings.size, settings.size)
            alphas = output.alphas
            if silhouettes is not None and silhouettes is not gaussians:
                alphas = renderer(silhouettes, some, settings.size, settings.size).alphas
            targets.append(torch.cat([output.images, alphas], 2)[0].movedim(1, -1))
    return torch.cat(targets)


def _fit(
    mesh: Mesh,
    targets: Float[Tensor, "C H W 4"],
    matrices: Float[Tensor, "C 3 4"],
    rasterizer: RefinementRasterizer,
    settings: RefinementSettings,
    on_step: Callable[[int, int], None] | None,
) -> Mesh:
    regularization = Regularization(mesh.surface)
    # In mean edges, so that one learning rate fits every scale.
    offsets = torch.zeros_like(mesh.vertices, requires_grad=True)
    texture = mesh.texture.detach().clone().requires_grad_()
    groups = [
        {"params": [offsets], "lr": settings.offset_rate},
        {"params": [texture], "lr": settings.texture_rate},
    ]
    # In one launch on a GPU.
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95), eps=1e-12, fused=targets.is_cuda or None)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], settings.steps + 1, pct_start=0.1, cycle_momentum=False
    )
    for step, views in enumerate(_order(settings, targets.device)):
        vertices = mesh.vertices + offsets * regularization.mean_edge
        drawn = rasterizer(vertices, texture, matrices[views], settings.size)
        loss = _image_loss(drawn, targets[views], settings.alpha_weight)
        loss = loss + settings.laplacian_weight * regularization.laplacian(vertices - mesh.vertices)
        loss = loss + settings.normal_weight * regularization.normal_consistency(vertices)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            # A projected gradient step: the written texture holds no other values.
            texture.clamp_(0, 1)
        if on_step:
            on_step(step + 1, settings.steps)
    vertices = (mesh.vertices + offsets * regularization.mean_edge).detach()
    return replace(mesh, vertices=vertices, texture=texture.detach())


def _image_loss(
    drawn: Float[Tensor, "C H W 4"], targets: Float[Tensor, "C H W 4"], alpha_weight: float
) -> Float[Tensor, ""]:
    """Mean squared errors of colours over white and, weighted, of alphas.

    drawn: premultiplied colours and alphas. targets: see `_targets`.
    """
    over_white = drawn[..., :3] + 1 - drawn[..., 3:]
    alphas = (drawn[..., 3] - targets[..., 3]).square().mean()
    return (over_white - targets[..., :3]).square().mean() + alpha_weight * alphas


def _order(settings: RefinementSettings, device: torch.device) -> list[Tensor]:
    """The views of each step: shuffled passes over all of them, the same for the same settings."""
    generator = torch.Generator().manual_seed(0)
    needed = settings.steps * settings.views_per_step
    passes = [
        torch.randperm(settings.num_views, generator=generator)
        for _ in range(math.ceil(needed / settings.num_views))
    ]
    return list(torch.cat(passes)[:needed].to(device).split(settings.views_per_step))
