"""Density of fuzzy parts, on which no two depth maps agree: the visual hull, where there are Gaussians.

A thin or blurred part of a prediction is a cloud of thick Gaussians. Each view sees its front elsewhere, and
in a fused field the votes for air win: forks, spokes and bars vanish. What all views agree on is its
silhouette. So a point counts as solid too where no view sees background (it lies in the visual hull) and the
cloud's opacity there, 1 - Π (1 - o_i exp(-d_i² / 2)) with Mahalanobis distances d_i, says that the hull
is not of air (Yu et al. 2024, Gaussian Opacity Fields). Concave parts stay open: their air has no Gaussians.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lgm.gaussians import Gaussians
from lgm.meshing.fusion import Field

# A Gaussian is evaluated as far as its opacity exceeds this.
_MIN_ALPHA = 0.04
# Optical depth of the cloud's border: a ray crosses many Gaussians, a point lies in few.
_BORDER = 0.05
# So many views may see nothing at a point of the hull: silhouettes are blurred.
_MOST_AIR = 0.5
# Voxels for a factor of e in optical depth, and for a view: how steep marching cubes' distances are.
_DEPTH_GAIN, _AIR_GAIN = 2.0, 4.0
# Standard deviations, in cells, up to which a Gaussian is flat and from which on it is thick.
_FLAT, _THICK = 0.1, 0.5
_COARSER = 2.0  # the cloud's grid against the field's: thinner Gaussians are seen well enough in depth maps
# Evaluations at most: a larger scene gets a coarser grid, which bounds time and memory.
_MOST_EVALUATIONS = 1e8
_AT_ONCE = 1 << 21


def with_fuzzy_parts(field: Field, gaussians: Gaussians) -> Field:
    """The union of a fused field and the solid of fuzzy parts. gaussians: those that the field was made of,
    [1, N, …]."""
    if field.air is None:
        return field
    shape = tuple(math.ceil(n / _COARSER) for n in field.values.shape)
    depth, spacing = optical_depth(gaussians, field.origin, _COARSER * field.voxel, shape)
    depth = _resampled(depth, spacing / field.voxel, tuple(field.values.shape))
    # In logarithms, so that it rises to the field's own height within a few voxels: a low plateau beside a
    # surface would draw marching cubes' zero towards it.
    cloud = _DEPTH_GAIN * (_BORDER / depth.clamp_min(1e-6)).log()
    hull = _AIR_GAIN * (field.air - _MOST_AIR)
    low, high = float(field.values.min()), float(field.values.max())
    # Of signed distances, a maximum is an intersection and a minimum a union.
    fuzzy = torch.maximum(cloud, hull).clamp(low, high)
    return Field(torch.minimum(field.values, fuzzy), field.origin, field.voxel, field.air)


def _resampled(coarse: Float[Tensor, "X Y Z"], step: float, shape: tuple[int, ...]) -> Tensor:
    """Trilinear values at a finer grid's samples; both begin alike, and `coarse` has one every `step`."""
    axes = [
        (2 * torch.arange(n, device=coarse.device) / step + 1) / size - 1
        for n, size in zip(shape, coarse.shape, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flip(-1)  # grid_sample counts from the last
    sampled = F.grid_sample(coarse[None, None], grid[None], align_corners=False, padding_mode="border")
    return sampled[0, 0]


def optical_depth(
    gaussians: Gaussians, origin: Float[Tensor, " 3"], spacing: float, shape: tuple[int, ...]
) -> tuple[Float[Tensor, "X Y Z"], float]:
    """-log(1 - opacity) of a scene on a grid whose first sample lies at `origin`, and the grid's spacing:
    twice as wide, or more, where the scene would take too long otherwise.

    Flat Gaussians count less, the flattest not at all: what they make of the grid would depend on where its
    samples happen to lie, and depth maps tell where they are.
    """
    means, scales = gaussians.means[0], gaussians.scales[0]
    opacities = gaussians.opacities[0].clamp_max(1 - 1e-4)
    axes = _axes(gaussians.quats[0]) * scales[:, None, :]  # [N, 3, 3], columns are half axes
    cutoff = (2 * (opacities / _MIN_ALPHA).clamp_min(1).log()).sqrt()
    reach = cutoff[:, None] * axes.square().sum(-1).sqrt()  # along the grid's axes
    while _boxes(means - origin, reach, spacing, shape)[1].prod(-1).sum() > _MOST_EVALUATIONS:
        spacing, shape = 2 * spacing, tuple(math.ceil(n / 2) for n in shape)
    thickness = scales.amin(-1) / spacing
    opacities = opacities * ((thickness - _FLAT) / (_THICK - _FLAT)).clamp(0, 1)
    inverse = axes.mT / scales.square().clamp_min(1e-16)[:, :, None]  # to units of standard deviations
    low, counts = _boxes(means - origin, reach, spacing, shape)
    size = torch.tensor(shape, device=means.device)
    some = (opacities > _MIN_ALPHA) & (counts > 0).all(-1)
    field = means.new_zeros(shape).flatten()
    for members in _alike(some.nonzero()[:, 0], counts):
        box = _box(counts[members].amax(0))
        for part in members.split(max(1, _AT_ONCE // len(box))):
            index = low[part, None] + box  # [P, K, 3]
            offset = origin + index * spacing - means[part, None]
            # Sums of products, not a matrix product, which a GPU may round to TF32.
            distance = sum(
                (offset * inverse[part, None, axis]).sum(-1).square() for axis in range(3)
            )  # [P, K]
            alpha = opacities[part, None] * (-0.5 * distance).exp()
            inside = ((index >= 0) & (index < size)).all(-1) & (alpha > 0.5 * _MIN_ALPHA)
            flat = (index[..., 0] * size[1] + index[..., 1]) * size[2] + index[..., 2]
            # Optical depths add where opacities multiply.
            field.index_add_(0, flat[inside], -torch.log1p(-alpha[inside]))
    return field.view(shape), spacing


def _boxes(
    centers: Float[Tensor, "N 3"], reach: Float[Tensor, "N 3"], spacing: float, shape: tuple[int, ...]
) -> tuple[Int[Tensor, "N 3"], Int[Tensor, "N 3"]]:
    """The first sample of the grid that each Gaussian reaches, and how many along each axis."""
    last = torch.tensor(shape, device=centers.device) - 1
    low = ((centers - reach) / spacing).clamp(-1e6, 1e6).ceil().long().clamp_min(0)
    high = ((centers + reach) / spacing).clamp(-1e6, 1e6).floor().long()
    return low, (torch.minimum(high, last) - low + 1).clamp_min(0)


def _alike(members: Int[Tensor, " M"], counts: Int[Tensor, "N 3"]) -> list[Int[Tensor, " K"]]:
    """Gaussians in groups of similar numbers of samples, whose boxes are evaluated together."""
    if not len(members):
        return []
    kind = (2 * counts[members].double().log2()).ceil().long()
    _, group = kind.unique(dim=0, return_inverse=True)
    order = group.argsort(stable=True)
    return list(members[order].split(group.bincount().tolist()))


def _box(counts: Int[Tensor, " 3"]) -> Int[Tensor, "K 3"]:
    return torch.cartesian_prod(*[torch.arange(n, device=counts.device) for n in counts.tolist()])


def _axes(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotation matrices of unit quaternions wxyz."""
    w, x, y, z = quats.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
