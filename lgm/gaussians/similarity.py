"""Carrying Gaussians from one frame into another."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.gaussians.gaussians import Gaussians


def moved(gaussians: Gaussians, similarity: Float[Tensor, "B 4 4"]) -> Gaussians:
    """The same Gaussians in another frame; colours have no direction and stay.

    similarity: a rotation, one scale for all axes, and a translation, for each scene. Raises ValueError
        where it is none: Gaussians cannot be mirrored, or stretched, by what they are made of.
    """
    linear, offset = similarity[:, :3, :3].double(), similarity[:, :3, 3].double()
    scale = torch.linalg.det(linear).clamp_min(0) ** (1 / 3)  # [B]
    rotation = linear / scale.clamp_min(1e-30)[:, None, None]
    unit = torch.eye(3, dtype=torch.float64, device=rotation.device)
    if not torch.allclose(rotation @ rotation.mT, unit.expand_as(rotation), atol=1e-4):
        raise ValueError(
            f"Gaussians are moved by a rotation, a positive scale and a translation, not by {linear.tolist()}"
        )
    dtype = gaussians.means.dtype
    means = gaussians.means.double() @ linear.mT + offset[:, None]
    quats = _product(_quats(rotation)[:, None], gaussians.quats.double())
    return Gaussians(
        means=means.to(dtype),
        quats=quats.to(dtype),
        scales=gaussians.scales * scale.to(dtype)[:, None, None],
        opacities=gaussians.opacities,
        colors=gaussians.colors,
    )


def _quats(rotation: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 4"]:
    """Unit quaternions wxyz of rotations.

    The symmetric matrix 4 q qᵀ is linear in the rotation; its largest column is q, up to length and
    sign, and none of its entries is divided by a small one (Bar-Itzhack 2000, after Shepperd 1978).
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rotation.unbind(-2))
    rows = [
        [1 + xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx],
        [xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz],
        [yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz],
    ]
    outer = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # [B, 4, 4]
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    column = outer[torch.arange(len(outer), device=outer.device), largest]
    return torch.nn.functional.normalize(column, dim=-1)


def _product(a: Float[Tensor, "*batch 4"], b: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Hamilton's product: the rotation b, then a."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a.unbind(-1), b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )
