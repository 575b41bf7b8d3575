"""The container of 3D Gaussians."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# In the order of the original's packed tensor, which released weights predict.
_WIDTHS = {"means": 3, "opacities": 1, "scales": 3, "quats": 4, "colors": 3}


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians a scene, after activation, for B scenes.

    means: centres in the world.
    quats: unit quaternions wxyz.
    scales: standard deviations along the Gaussian's own axes, in world units.
    opacities: 0 to 1.
    colors: rgb, 0 to 1.
    """

    means: Float[Tensor, "B N 3"]
    quats: Float[Tensor, "B N 4"]
    scales: Float[Tensor, "B N 3"]
    opacities: Float[Tensor, "B N"]
    colors: Float[Tensor, "B N 3"]

    def __post_init__(self) -> None:
        batch = self.means.shape[:2]
        for name, width in _WIDTHS.items():
            shape = tuple(getattr(self, name).shape)
            expected = tuple(batch) if name == "opacities" else (*batch, width)
            if len(batch) != 2 or shape != expected:
                axes = "[B, N]" if name == "opacities" else f"[B, N, {width}]"
                raise ValueError(
                    f"Gaussians.{name} has shape {shape}, expected {axes} "
                    f"with means of shape {tuple(self.means.shape)}"
                )

    @property
    def num_scenes(self) -> int:
        """B, the batch axis."""
        return self.means.shape[0]

    @property
    def num_gaussians(self) -> int:
        """Gaussians in one scene."""
        return self.means.shape[1]

    def packed(self) -> Float[Tensor, "B N 14"]:
        """One tensor in the original's order: means 3, opacity 1, scales 3, quats 4, rgb 3."""
        return torch.cat(
            [self.means, self.opacities[..., None], self.scales, self.quats, self.colors], dim=-1
        )

    @classmethod
    def from_packed(cls, x: Float[Tensor, "B N 14"]) -> Gaussians:
        """The inverse of `packed`; ValueError for another shape than [B, N, 14]."""
        if x.ndim != 3 or x.shape[-1] != 14:
            raise ValueError(f"packed Gaussians have shape [B, N, 14], got {tuple(x.shape)}")
        means, opacities, scales, quats, colors = x.split(list(_WIDTHS.values()), dim=-1)
        return cls(means, quats, scales, opacities[..., 0], colors)

    def __getitem__(self, scenes: slice) -> Gaussians:
        return self._map(lambda x: x[scenes])

    def scene(self, index: int) -> Gaussians:
        """One scene, still with its batch axis: [1, N, …]."""
        return self[index : index + 1]

    def select(self, keep: Tensor) -> Gaussians:
        """The Gaussians of one scene ([1, N, …]) that a mask or index [N] names; ValueError for several
        scenes.
        """
        if self.num_scenes != 1:
            raise ValueError(f"select works on one scene, got {self.num_scenes}; take .scene(i) first")
        return self._map(lambda x: x[:, keep])

    def turned(self, quat: Float[Tensor, " 4"]) -> Gaussians:
        """The same scenes in a world that is rotated about its origin by a unit quaternion wxyz."""
        quat = quat.to(self.means)
        # v' = v + 2 w (q × v) + 2 q × (q × v): a rotation by a unit quaternion without its matrix.
        w, axis = quat[0], quat[1:].expand_as(self.means)
        cross = torch.linalg.cross(axis, self.means, dim=-1)
        means = self.means + 2 * (w * cross + torch.linalg.cross(axis, cross, dim=-1))
        return replace(self, means=means, quats=_product(quat.expand_as(self.quats), self.quats))

    def detach(self) -> Gaussians:
        """The same tensors without their autograd history."""
        return self._map(Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> Gaussians:
        """On another device, or with another float type, as `Tensor.to`."""
        return self._map(lambda x: x.to(*args, **kwargs))

    def _map(self, function: Any) -> Gaussians:
        return Gaussians(**{field.name: function(getattr(self, field.name)) for field in fields(self)})


def _product(p: Float[Tensor, "*batch 4"], q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Hamilton's product: the rotation q, then p."""
    w = p[..., :1] * q[..., :1] - (p[..., 1:] * q[..., 1:]).sum(dim=-1, keepdim=True)
    cross = torch.linalg.cross(p[..., 1:], q[..., 1:], dim=-1)
    return torch.cat([w, p[..., :1] * q[..., 1:] + q[..., :1] * p[..., 1:] + cross], dim=-1)
