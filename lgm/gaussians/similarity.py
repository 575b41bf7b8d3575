"""Carrying Gaussians from one frame into another."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.gaussians.gaussians import Gaussians


def moved(gaussians: Gaussians, similarity: Float[Tensor, "4 4"]) -> Gaussians:
    """The same Gaussians in another frame; colours have no direction and stay.

    similarity: a rotation, one scale for all axes, and a translation. Raises ValueError where it is none:
        Gaussians cannot be mirrored, or sheared, by what they are made of.
    """
    linear, offset = similarity[:3, :3].double(), similarity[:3, 3].double()
    scale = torch.linalg.det(linear).clamp_min(0) ** (1 / 3)
    rotation = linear / scale.clamp_min(1e-30)
    if not torch.allclose(rotation @ rotation.mT, torch.eye(3).to(rotation), atol=1e-4):
        raise ValueError(
            f"Gaussians are moved by a rotation, a positive scale and a translation, not by {linear.tolist()}"
        )
    turned = gaussians.turned(_quat(rotation))
    means = turned.means.double() * scale + offset
    return replace(turned, means=means.to(turned.means), scales=turned.scales * scale.to(turned.scales))


def _quat(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, 4]:
    """The unit quaternion wxyz of a rotation.

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
    outer = torch.stack([torch.stack(row) for row in rows])  # [4, 4]
    return torch.nn.functional.normalize(outer[outer.diagonal().argmax()], dim=-1)
