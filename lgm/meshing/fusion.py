"""TSDF fusion: a truncated signed distance field from depth maps (Curless and Levoy 1996), in a narrow band.

Each view votes on each voxel: in front of the surface that it sees (positive), a little behind it
(negative), or hidden. Three choices serve Gaussians, whose depth maps are soft:

* distances are measured along the surface's normal, and weigh by the angle between normal and ray, so that
  pixels on depth edges, which mix two surfaces, count little;
* behind the surface the truncation is short: thin plates seen from both sides do not swell;
* a voxel that is hidden from views is taken for solid with a small weight, until two views see that it is
  empty: one wrong ray does not drill a hole, two views into a deep cup open it, however many see only its
  outside. So the field is closed everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lgm.meshing.capture import RADIUS, Capture

_BLOCK = 4  # voxels along a side of the blocks that the narrow band is made of
_IN_FRONT, _BEHIND = 4.0, 2.0  # truncation in voxels
_SOLID_WEIGHT = 0.02
_NEGATIVE_WEIGHT = 2.0
_MIN_COSINE = 0.2
# Views that see a voxel in front of a surface, from which on it counts no more that others do not see it.
_MIN_FREE = 2.0
# Voxels by which the surface lies outside the zero of the votes: images of Gaussians end there.
_OUTWARD = 0.15
# On a CPU, temporary tensors of so many points stay in its cache.
_POINTS_AT_ONCE = {"cpu": 1 << 15}
_POINTS_AT_ONCE_ELSEWHERE = 1 << 20


@dataclass(frozen=True)
class Field:
    """Signed distances in voxels, positive outside, on a grid whose first sample lies at `origin`.

    air: how many views see nothing at a sample; None where it is not known.
    """

    values: Float[Tensor, "X Y Z"]
    origin: Float[Tensor, " 3"]
    voxel: float
    air: Float[Tensor, "X Y Z"] | None = None


@dataclass(frozen=True)
class _Maps:
    """alpha, alpha · depth, alpha · cosine at each pixel, and the alpha that makes a pixel a hit."""

    values: Float[Tensor, "C 3 H W"]
    threshold: float


def fuse(capture: Capture, resolution: int) -> Field:
    """The signed distance field of what views see, with `resolution` voxels along the longest side of the
    box around it.

    Raises ValueError in one line where no view sees anything.
    """
    maps = _maps(capture)
    points = surface_points(capture, maps.threshold)
    if not len(points):
        raise ValueError("no view sees a surface: the Gaussians are too faint or too small to make a mesh of")
    low, high = points.amin(0), points.amax(0)
    voxel = float((high - low).amax().clamp_min(1e-3 * RADIUS)) / resolution
    blocks = (((high - low) / voxel).ceil() / _BLOCK).ceil().long() + 4  # two blocks of air on each side
    origin = (low + high) / 2 - blocks * _BLOCK * voxel / 2
    centers = _grid(blocks, origin + (_BLOCK - 1) / 2 * voxel, _BLOCK * voxel)
    coarse, coarse_air = (x.view(*blocks.tolist()) for x in _distances(centers, capture, maps, voxel))
    # Coarse to fine: only blocks near the surface are evaluated at every voxel.
    band = _near(points, origin, voxel, blocks) | _sign_changes(coarse)
    values, air = _spread(coarse), _spread(coarse_air)
    index = _voxels(band)
    index = index.unbind(-1)
    values[index], air[index] = _distances(origin + torch.stack(index, -1) * voxel, capture, maps, voxel)
    return Field(values, origin, voxel, air)


def surface_points(capture: Capture, threshold: float) -> Float[Tensor, "P 3"]:
    """The points that pixels with an alpha of at least `threshold` see."""
    alphas, depths = capture.alphas[:, 0], capture.depths[:, 0]
    view, row, column = (alphas >= threshold).nonzero(as_tuple=True)
    depth = depths[view, row, column] / alphas[view, row, column]
    K = capture.cameras.intrinsics(capture.size, capture.size)[view]
    x = (column + 0.5 - K[:, 0, 2]) / K[:, 0, 0] * depth
    y = (row + 0.5 - K[:, 1, 2]) / K[:, 1, 1] * depth
    c2w = capture.cameras.c2w[view]
    camera = torch.stack([x, y, depth], -1)  # [P, 3]
    return (c2w[:, :3, :3] * camera[:, None]).sum(-1) + c2w[:, :3, 3]


def hit_threshold(alphas: Float[Tensor, "C 1 H W"]) -> float:
    """The alpha above which a pixel sees a surface: 0.5, or half of what a see-through object reaches."""
    some = alphas[alphas > 0.05]
    return 0.5 * min(1.0, float(some[:: max(1, len(some) // 100_000)].quantile(0.9))) if len(some) else 0.5


def _maps(capture: Capture) -> _Maps:
    threshold = hit_threshold(capture.alphas)
    cosines = _cosines(capture, threshold)
    return _Maps(torch.cat([capture.alphas, capture.depths, capture.alphas * cosines], 1), threshold)


def _cosines(capture: Capture, threshold: float) -> Float[Tensor, "C 1 H W"]:
    """Between each pixel's ray and the normal of the depth map there.

    Each derivative is the smaller of the two one-sided ones, so that a depth edge beside a surface does
    not turn the surface's own normal.
    """
    alphas = capture.alphas[:, 0]
    depth = capture.depths[:, 0] / alphas.clamp_min(1e-6)
    depth = torch.where(alphas >= threshold, depth, 1e3)
    K = capture.cameras.intrinsics(capture.size, capture.size)[:, None, None]
    pixels = torch.arange(capture.size, device=alphas.device) + 0.5
    slope_x = (pixels[None, None, :] - K[..., 0, 2]) / K[..., 0, 0]
    slope_y = (pixels[None, :, None] - K[..., 1, 2]) / K[..., 1, 1]
    # Of the surface z(x, y) in image coordinates: the normal is (f_x z_x, f_y z_y, -(z + x z_x + y z_y)).
    z_x, z_y = (_one_sided(depth, axis) for axis in (2, 1))
    normal_x, normal_y = K[..., 0, 0] * z_x, K[..., 1, 1] * z_y
    normal_z = -(depth + slope_x * normal_x + slope_y * normal_y)
    along = normal_x * slope_x + normal_y * slope_y + normal_z
    length = (normal_x**2 + normal_y**2 + normal_z**2).sqrt() * (1 + slope_x**2 + slope_y**2).sqrt()
    return (along.abs() / length.clamp_min(1e-12))[:, None]


def _one_sided(depth: Float[Tensor, "C H W"], axis: int) -> Float[Tensor, "C H W"]:
    step = depth.diff(dim=axis)
    first, last = step.narrow(axis, 0, 1), step.narrow(axis, step.shape[axis] - 1, 1)
    before, after = torch.cat([first, step], axis), torch.cat([step, last], axis)
    return torch.where(before.abs() < after.abs(), before, after)


def _distances(
    points: Float[Tensor, "M 3"], capture: Capture, maps: _Maps, voxel: float
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """Fused signed distances at points, in voxels, and how many views see nothing there."""
    at_once = _POINTS_AT_ONCE.get(points.device.type, _POINTS_AT_ONCE_ELSEWHERE)
    parts = [_fused(some, capture, maps, voxel) for some in points.split(at_once)]
    distances, air = zip(*parts, strict=True)
    return torch.cat(distances), torch.cat(air)


def _spread(coarse: Float[Tensor, "X Y Z"]) -> Tensor:
    """Each block's value at all of its voxels."""
    return coarse.repeat_interleave(_BLOCK, 0).repeat_interleave(_BLOCK, 1).repeat_interleave(_BLOCK, 2)


def _fused(
    points: Float[Tensor, "M 3"], capture: Capture, maps: _Maps, voxel: float
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    x, y, z = points.T.contiguous()
    total, weights = torch.zeros_like(x), torch.full_like(x, 1e-6)
    num_free, num_hidden, num_air = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
    for view in range(len(capture.alphas)):
        grid, depth = capture.project(view, x, y, z)
        sampled = F.grid_sample(maps.values[view : view + 1], grid, align_corners=False)[0, :, 0]
        air = 1 - sampled[0] / maps.threshold
        distance, weight = _vote(sampled, depth, air, voxel)
        # The weighted mean of truncated distances, one view at a time to bound memory.
        total.addcmul_(distance, weight)
        weights += weight
        num_hidden += distance <= -_BEHIND
        num_free += distance.clamp_(0, 1).mul_(weight > 0)
        num_air += air.clamp_min_(0)
    # The weight of hidden votes ends before their number could outvote the few views into a cavity.
    hidden = _SOLID_WEIGHT * num_hidden * (1 - num_free / _MIN_FREE).clamp_min(0)
    return (total - _BEHIND * hidden) / (weights + hidden) - _OUTWARD, num_air


def _vote(
    sampled: Float[Tensor, "3 M"], z: Float[Tensor, " M"], air: Float[Tensor, " M"], voxel: float
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """One view's signed distances in voxels, and their weights; in place, as `Capture.project` says.

    air: 1 where it sees nothing, 0 where a pixel just is a hit.
    """
    alpha, depth, cosine = sampled
    scale = 1 / alpha.clamp_min(1e-6)
    cosine = (cosine * scale).clamp_(_MIN_COSINE, 1)
    distance = scale.mul_(depth).sub_(z).mul_(cosine).div_(voxel)
    weight = cosine.square_()
    # Behind the surface the weight falls linearly; farther behind it the voxel is hidden, see `_fused`.
    behind = (_NEGATIVE_WEIGHT + distance * (_NEGATIVE_WEIGHT / _BEHIND)).clamp_min_(0).mul_(weight)
    weight = torch.where(distance < 0, behind, weight)
    hit = air <= 0
    distance = torch.where(hit, distance.clamp_(-_BEHIND, _IN_FRONT), _IN_FRONT)
    return distance, torch.where(hit, weight, air)


def _grid(shape: Int[Tensor, " 3"], origin: Tensor, spacing: float) -> Float[Tensor, "M 3"]:
    axes = [torch.arange(int(n), device=origin.device) for n in shape]
    return origin + torch.cartesian_prod(*axes) * spacing


def _near(points: Tensor, origin: Tensor, voxel: float, blocks: Int[Tensor, " 3"]) -> Bool[Tensor, "X Y Z"]:
    """Blocks with a voxel at most half a block away from a point's half block."""
    halves = 2 * blocks
    counts = torch.zeros(halves.tolist(), device=points.device)
    # A voxel's sample lies in the middle of its cell.
    index = ((points - origin) / voxel + 0.5).div_(_BLOCK / 2).floor_().long()
    index = torch.minimum(index.clamp_min(0), halves.to(index.device) - 1)
    counts[index.unbind(-1)] = 1
    near = F.max_pool3d(counts[None, None], 3, stride=1, padding=1)
    return F.max_pool3d(near, 2)[0, 0] > 0


def _sign_changes(coarse: Float[Tensor, "X Y Z"]) -> Bool[Tensor, "X Y Z"]:
    """Blocks beside one on the other side of the surface."""
    outside = coarse > 0
    changes = torch.zeros_like(outside)
    for axis, size in enumerate(outside.shape):
        change = outside.narrow(axis, 1, size - 1) != outside.narrow(axis, 0, size - 1)
        changes.narrow(axis, 1, size - 1).logical_or_(change)
        changes.narrow(axis, 0, size - 1).logical_or_(change)
    return changes


def _voxels(band: Bool[Tensor, "X Y Z"]) -> Int[Tensor, "M 3"]:
    """The voxels of blocks."""
    offsets = torch.cartesian_prod(*[torch.arange(_BLOCK, device=band.device)] * 3)
    return (band.nonzero()[:, None] * _BLOCK + offsets).flatten(0, 1)
