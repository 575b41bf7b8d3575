"""More objects than there are: mirrored ones, and ones of other colours.

The published recipe has neither, and 80,000 objects need neither. Where there are hundreds, a network
soon knows them by heart. An object's inputs and targets are changed alike, so all stays consistent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lgm.cameras import Cameras
from lgm.preparation.draws import check_probability, uniforms

_MIRROR, _COLORS = 3, 4  # random streams beside those of lgm.preparation.augment
_ORDERS = tuple(permutations(range(3)))


class Mirror:
    """Mirrors an object's world at the plane x = 0 of the canonical frame: the first camera stays.

    probability: of an object to be mirrored.
    """

    def __init__(self, probability: float) -> None:
        check_probability("mirror", probability)
        self.probability = probability

    def draw(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> Bool[Tensor, " B"]:
        """Which objects are mirrored [B]."""
        return uniforms(seeds, _MIRROR, 1, device)[:, 0] < self.probability

    @staticmethod
    def images(
        images: Float[Tensor, "B V C H W"], is_applied: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B V C H W"]:
        """Images [B, V, C, H, W], flipped left to right where `is_applied`."""
        return torch.where(is_applied[:, None, None, None, None], images.flip(-1), images)

    @staticmethod
    def cameras(cameras: Cameras, is_applied: Bool[Tensor, " B"]) -> Cameras:
        """Of shape [B, V], in the canonical frame."""
        is_applied = is_applied[:, None, None, None]
        sign = torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=cameras.c2w.dtype).to(cameras.device)
        # The world's x changes its sign, and the camera's: it stays right-handed.
        c2w = cameras.c2w * sign[:, None] * sign
        K_norm = cameras.K_norm.clone()
        K_norm[..., 0, 1] = -K_norm[..., 0, 1]
        K_norm[..., 0, 2] = 1 - K_norm[..., 0, 2]
        return replace(
            cameras,
            c2w=torch.where(is_applied, c2w, cameras.c2w),
            K_norm=torch.where(is_applied, K_norm, cameras.K_norm),
        )


class ColorShuffle:
    """Exchanges an object's red, green and blue, in one of the six orders, drawn evenly.

    probability: of an object to have an order drawn, which may be its own.
    """

    def __init__(self, probability: float) -> None:
        check_probability("color_shuffle", probability)
        self.probability = probability

    def draw(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> Int[Tensor, "B 4"]:
        """For each object the channels that become its red, green, blue and alpha."""
        drawn = uniforms(seeds, _COLORS, 2, device)
        # float32 may round the product up to 6.
        number = (drawn[:, 1] * len(_ORDERS)).long().clamp_max(len(_ORDERS) - 1)
        number = torch.where(drawn[:, 0] < self.probability, number, 0)  # the first order is red, green, blue
        return torch.tensor([[*order, 3] for order in _ORDERS]).to(device)[number]

    @staticmethod
    def images(rgba: Float[Tensor, "B V 4 H W"], orders: Int[Tensor, "B 4"]) -> Float[Tensor, "B V 4 H W"]:
        """Images [B, V, C, H, W] with their colour channels in each object's order."""
        return torch.take_along_dim(rgba, orders[:, None, :, None, None], dim=2)
