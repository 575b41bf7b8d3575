"""Capture: depth, colour and alpha views of Gaussians from all sides, the input of TSDF fusion."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import Cameras
from lgm.cameras.trajectories import spiral_angles
from lgm.gaussians import Gaussians
from lgm.gaussians.similarity import moved
from lgm.rendering.base import Renderer
from lgm.rendering.projection import BLUR_VARIANCE

log = logging.getLogger(__name__)

# The unit frame: the object in a sphere of RADIUS about the origin, cameras at DISTANCE, whose field of
# view holds that sphere with a margin.
RADIUS = 0.6
DISTANCE = 2.0
FOV_Y_DEG = 37.0
# Of the opacity-weighted mass of Gaussians, how much may lie outside the frame at each end of an axis.
_TAIL = 0.002
# A Gaussian reaches so many standard deviations beyond its centre.
_REACH = 2.0
_VISIBLE = 1 / 255
_EDGE_ON = 0.1
# An object whose median alpha is below this, in a few views, is see-through.
_SEE_THROUGH, _OPAQUE = 0.8, 0.9999
_PROBES = 4


@dataclass(frozen=True)
class Capture:
    """C views of one scene in the unit frame.

    colors: straight (not premultiplied), over nothing; alphas: coverage.
    depths: alpha-weighted sums of distances along the camera's axis, as a renderer's.
    """

    cameras: Cameras
    colors: Float[Tensor, "C 3 H W"]
    alphas: Float[Tensor, "C 1 H W"]
    depths: Float[Tensor, "C 1 H W"]

    @property
    def size(self) -> int:
        """Height and width of the views in pixels."""
        return self.alphas.shape[-1]

    def project(
        self, view: int, x: Float[Tensor, " P"], y: Float[Tensor, " P"], z: Float[Tensor, " P"]
    ) -> tuple[Float[Tensor, "1 1 P 2"], Float[Tensor, " P"]]:
        """Where one view sees points of the unit frame: the grid of `torch.nn.functional.grid_sample`, and
        depths along the camera's axis."""
        # In place and by numbers of the host: on a CPU, temporary tensors take longer than the sums.
        u, v, depth = (
            (x * row[0]).add_(y, alpha=row[1]).add_(z, alpha=row[2]).add_(row[3]) for row in self._rows[view]
        )
        return torch.stack([u.div_(depth), v.div_(depth)], -1)[None, None], depth

    @cached_property
    def _rows(self) -> list[list[list[float]]]:
        """Matrices [C, 3, 4] to homogeneous image coordinates from -1 to 1."""
        w2c, K = self.cameras.w2c.double(), self.cameras.K_norm.double()
        to_grid = 2 * K[:, :2]
        to_grid[..., 2] -= 1
        # Sums of products, not a matrix product, which a GPU may round to TF32.
        image = (to_grid[..., None] * w2c[:, None, :3]).sum(-2)  # [C, 2, 4]
        return torch.cat([image, w2c[:, 2:3]], 1).tolist()


@dataclass(frozen=True)
class Framed:
    """Gaussians [1, N, …] in the unit frame, and the similarity that carries points back."""

    gaussians: Gaussians
    to_given: Float[Tensor, "4 4"]

    def restore(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Points of the unit frame, in the frame that the Gaussians were given in."""
        scale, offset = self.to_given[0, 0], self.to_given[:3, 3]
        return (points.double() * scale + offset.to(points.device)).to(points.dtype)


def framed(gaussians: Gaussians) -> Framed:
    """Move one scene [1, N, …] to the unit frame. Gaussians that nobody can see are left out, and single
    ones far from the rest do not count for the size.

    Raises ValueError in one line where nothing is visible, and where values are not finite.
    """
    if gaussians.num_scenes != 1:
        raise ValueError(f"a mesh is made of one scene, got {gaussians.num_scenes}; take .scene(i)")
    gaussians = gaussians.detach().to(torch.float32)
    broken = ~gaussians.packed()[0].isfinite().all(-1)
    if num_broken := int(broken.sum()):
        raise ValueError(
            f"{num_broken} of {gaussians.num_gaussians} Gaussians hold NaN or infinity, the first at "
            f"{int(broken.nonzero()[0])}; no mesh is made of them"
        )
    visible = gaussians.select(gaussians.opacities[0] >= _VISIBLE)
    if not visible.num_gaussians:
        raise ValueError(
            f"none of {gaussians.num_gaussians} Gaussians is visible: opacities reach "
            f"{float(gaussians.opacities.max()) if gaussians.num_gaussians else 0.0:.2g}; "
            "there is nothing to make a mesh of"
        )
    low, high = _extent(visible)
    center, radius = (low + high) / 2, float((high - low).norm()) / 2
    scale = RADIUS / max(radius, 1e-12)
    to_unit = torch.eye(4, dtype=torch.float64)
    to_unit[:3, :3] *= scale
    to_unit[:3, 3] = -center.cpu() * scale
    to_given = torch.eye(4, dtype=torch.float64)
    to_given[:3, :3] /= scale
    to_given[:3, 3] = center.cpu()
    return Framed(moved(visible, to_unit.to(gaussians.means.device)), to_given)


def capture(
    gaussians: Gaussians,
    renderer: Renderer,
    num_views: int,
    size: int,
    views_per_call: int = 4,
    deviations: float = 0.0,
    on_view: Callable[[int, int], None] | None = None,
) -> Capture:
    """Render a scene of the unit frame from a spiral over the sphere, at size² pixels.

    on_view: called with the number of views that are rendered and their total.
    """
    cameras = sphere_cameras(num_views).to(gaussians.means.device)
    images, alphas, depths = [], [], []
    for start in range(0, num_views, views_per_call):
        some = cameras[start : start + views_per_call]
        with torch.no_grad():
            output = renderer(gaussians, some[None], size, size, background=(0.0, 0.0, 0.0))
            depths.append(_depths(gaussians, renderer, some, deviations, size))
        images.append(output.images[0])
        alphas.append(output.alphas[0])
        if on_view:
            on_view(min(start + views_per_call, num_views), num_views)
    alpha = torch.cat(alphas)
    return Capture(cameras, torch.cat(images) / alpha.clamp_min(1e-6), alpha, torch.cat(depths))


def opaque(gaussians: Gaussians, renderer: Renderer, size: int) -> Gaussians:
    """A see-through scene of the unit frame made opaque: all optical depths are multiplied by one number, so
    that the median alpha becomes `_OPAQUE`. Depths then are of the side that one sees first. Others stay."""
    with torch.no_grad():
        cameras = sphere_cameras(_PROBES).to(gaussians.means.device)
        alphas = renderer(gaussians, cameras[None], size, size).alphas
    covered = alphas[alphas > 0.1 * alphas.max()]
    if not len(covered):
        return gaussians
    usual = float(covered.median().clamp(1e-6, 1 - 1e-6))
    if usual >= _SEE_THROUGH:
        return gaussians
    # Optical depths -log(1 - alpha) add up along a ray, so one factor on all of them scales the ray's.
    factor = math.log(1 - _OPAQUE) / math.log(1 - usual)
    log.info("the object is see-through (median alpha=%.2f): its mesh is opaque", usual)
    return replace(gaussians, opacities=1 - (1 - gaussians.opacities.clamp_max(1 - 1e-6)) ** factor)


def depth_scenes(gaussians: Gaussians, cameras: Cameras, deviations: float, size: int) -> Gaussians:
    """One scene for each of C cameras, whose "colours" are what a pixel's depth is the sum of.

    A renderer's depth is that of the centres, which errs where a Gaussian is seen at an angle or is thick.
    Within one Gaussian, the mean depth along the ray through image coordinates p is z + g · (p - q), with q
    its centre and g = Σ_zp Σ_pp⁻¹ of its covariance there (Zhang et al. 2024, RaDe-GS): linear in p, so that
    sums of z - g · q, of g_x and of g_y over a pixel's Gaussians give the sum of their depths at p.

    deviations: depths are of a front so many standard deviations along the ray before that mean.
    """
    w2c = cameras.w2c[:, None]  # [C, 1, 4, 4]
    center = (w2c[..., :3, :3] * gaussians.means[..., None, :]).sum(-1) + w2c[..., :3, 3]
    z = center[..., 2].clamp_min(1e-3)
    slope_x, slope_y = center[..., 0] / z, center[..., 1] / z
    axes = [_rotated(w2c[..., i, :3].expand_as(center), gaussians.quats) * gaussians.scales for i in range(3)]
    axis_x = (axes[0] - slope_x[..., None] * axes[2]) / z[..., None]
    axis_y = (axes[1] - slope_y[..., None] * axes[2]) / z[..., None]
    # Part of the low-pass filter that renderers add, from pixels² to slopes²: a flat Gaussian that is seen
    # from its edge keeps a finite slope. All of it would lose the slopes of thin ones seen at an angle.
    blur = _EDGE_ON * BLUR_VARIANCE / (cameras.K_norm[:, 1, 1] * size).square()[:, None]
    xx, yy = axis_x.square().sum(-1) + blur, axis_y.square().sum(-1) + blur
    xy = (axis_x * axis_y).sum(-1)
    zx, zy = (axes[2] * axis_x).sum(-1), (axes[2] * axis_y).sum(-1)
    determinant = (xx * yy - xy.square()).clamp_min(1e-20)
    gradient_x = (zx * yy - zy * xy) / determinant
    gradient_y = (zy * xx - zx * xy) / determinant
    # The conditional variance of depth, given the image position: a Schur complement.
    variance = axes[2].square().sum(-1) - gradient_x * zx - gradient_y * zy
    front = z - deviations * variance.clamp_min(0).sqrt()
    features = torch.stack(
        [front - gradient_x * slope_x - gradient_y * slope_y, gradient_x, gradient_y], dim=-1
    )
    count = len(center)
    return Gaussians(
        means=gaussians.means.expand(count, -1, -1),
        quats=gaussians.quats.expand(count, -1, -1),
        scales=gaussians.scales.expand(count, -1, -1),
        opacities=gaussians.opacities.expand(count, -1),
        colors=features,
    )


def _depths(
    gaussians: Gaussians, renderer: Renderer, cameras: Cameras, deviations: float, size: int
) -> Float[Tensor, "C 1 H W"]:
    """Alpha-weighted sums of depths, see `depth_scenes`."""
    scenes = depth_scenes(gaussians, cameras, deviations, size)
    constant, gradient_x, gradient_y = (
        renderer(scenes, cameras[:, None], size, size, background=(0.0, 0.0, 0.0))
        .images[:, 0]
        .split(1, dim=1)
    )
    pixels = (torch.arange(size, device=constant.device) + 0.5) / size
    slope_x = (pixels - cameras.K_norm[:, 0, 2, None]) / cameras.K_norm[:, 0, 0, None]  # [C, W]
    slope_y = (pixels - cameras.K_norm[:, 1, 2, None]) / cameras.K_norm[:, 1, 1, None]
    return constant + gradient_x * slope_x[:, None, None, :] + gradient_y * slope_y[:, None, :, None]


def _rotated(vectors: Float[Tensor, "C N 3"], quats: Float[Tensor, "1 N 4"]) -> Float[Tensor, "C N 3"]:
    """Vectors of the world along the axes of unit quaternions wxyz."""
    w, axis = quats[..., :1], -quats[..., 1:].expand_as(vectors)
    cross = torch.linalg.cross(axis, vectors, dim=-1)
    return vectors + 2 * (w * cross + torch.linalg.cross(axis, cross, dim=-1))


def sphere_cameras(num_views: int, max_elevation_deg: float = 85.0) -> Cameras:
    """Cameras [C] on a spiral over the sphere of the unit frame."""
    return Cameras.orbit(*spiral_angles(num_views, max_elevation_deg), DISTANCE, FOV_Y_DEG)


def _extent(gaussians: Gaussians) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
    """The box of a scene, in float64: quantiles of the centres by opacity, and what Gaussians there reach."""
    means, weights = gaussians.means[0].double(), gaussians.opacities[0].double()
    reach = _REACH * gaussians.scales[0].double().amax(-1)
    low, high = [], []
    for axis in range(3):
        order = means[:, axis].argsort()
        mass = weights[order].cumsum(0) / weights.sum()
        first = int((mass <= _TAIL).sum().clamp_max(len(order) - 1))
        last = int((mass < 1 - _TAIL).sum().clamp_max(len(order) - 1))
        inside = order[first : last + 1]
        low.append((means[inside, axis] - reach[inside]).quantile(_TAIL))
        high.append((means[inside, axis] + reach[inside]).quantile(1 - _TAIL))
    return torch.stack(low), torch.stack(high)
