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
from lgm.types import Views

_MIRROR, _COLORS, _TONES = 3, 4, 6  # random streams beside those of lgm.preparation.augment
_ORDERS = tuple(permutations(range(3)))
_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in ITU-R BT.601


class Mirror:
    """Mirrors an object's world at the plane x = 0 of the canonical frame: the first camera stays.

    The later inputs change their order: a ring at azimuths 0, 90, 180, 270 stands at 0, 270, 180, 90 once it
    is mirrored, and evaluation has its second input at 90.

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
    def ordered(views: Views, is_applied: Bool[Tensor, " B"]) -> Views:
        """The same views, all but the first in reverse where `is_applied`. Images and cameras are not yet
        mirrored."""

        def reverse(x: Tensor) -> Tensor:
            reversed_ = torch.cat([x[:, :1], x[:, 1:].flip(1)], dim=1)
            return torch.where(is_applied.to(x.device).view(-1, *[1] * (x.dim() - 1)), reversed_, x)

        cameras, depths = views.cameras, views.depths
        flags = cameras.is_orthographic
        return Views(
            images=reverse(views.images),
            alphas=reverse(views.alphas),
            cameras=Cameras(
                reverse(cameras.c2w), reverse(cameras.K_norm), None if flags is None else reverse(flags)
            ),
            view_ids=reverse(views.view_ids),
            depths=None if depths is None else reverse(depths),
        )

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


class ColorJitter:
    """Other tones of an object: a gamma and a gain for each of red, green and blue, and another saturation.

    A colour c in 0..1 becomes gain · c^gamma, then moves away from its luma or towards it, and is clipped to
    0..1. One object has one tone curve in all its views, so that they stay consistent. Only the object
    changes: colours are divided by alpha before and multiplied with it afterwards.

    probability: of an object to be changed.
    max_gain, max_gamma: gains and gammas lie between 1 / maximum and the maximum, evenly in their logarithm;
        1 leaves them out.
    max_saturation: saturation lies between 1 - max_saturation and 1 + max_saturation, evenly; 0 leaves it
        out.
    """

    def __init__(self, probability: float, max_gain: float, max_gamma: float, max_saturation: float) -> None:
        check_probability("color_jitter", probability)
        for name, value in (("max_gain", max_gain), ("max_gamma", max_gamma)):
            if not 1 <= value <= 10:
                raise ValueError(f"data.augment.color_jitter.{name}={value} must lie between 1 and 10")
        if not 0 <= max_saturation <= 1:
            raise ValueError(
                f"data.augment.color_jitter.max_saturation={max_saturation} must lie between 0 and 1"
            )
        self.probability = probability
        self.max_gain, self.max_gamma, self.max_saturation = max_gain, max_gamma, max_saturation

    def draw(
        self, seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> tuple[Bool[Tensor, " B"], Float[Tensor, "B 3"], Float[Tensor, "B 3"], Float[Tensor, "B 1"]]:
        """Which objects are changed, and their gains, gammas and saturation."""
        applied, gains, gammas, saturation = uniforms(seeds, _TONES, 8, device).split([1, 3, 3, 1], dim=1)
        return (
            applied[:, 0] < self.probability,
            self.max_gain ** (2 * gains - 1),
            self.max_gamma ** (2 * gammas - 1),
            1 + self.max_saturation * (2 * saturation - 1),
        )

    @staticmethod
    def images(
        rgba: Float[Tensor, "B V 4 H W"],
        is_applied: Bool[Tensor, " B"],
        gains: Float[Tensor, "B 3"],
        gammas: Float[Tensor, "B 3"],
        saturation: Float[Tensor, "B 1"],
    ) -> Float[Tensor, "B V 4 H W"]:
        """Images [B, V, 4, H, W], premultiplied as before, with each object's tones where `is_applied`."""
        alpha = rgba[:, :, 3:]
        # Premultiplied colour is at most alpha; resizing rounds a little beyond it.
        colors = (rgba[:, :, :3] / alpha.clamp_min(1e-6)).clamp_(0, 1)
        gains, gammas, saturation = (x[:, None, :, None, None] for x in (gains, gammas, saturation))
        colors = colors.pow_(gammas).mul_(gains)
        red, green, blue = (
            weight * channel for weight, channel in zip(_LUMA, colors.split(1, dim=2), strict=True)
        )
        luma = red + green + blue
        colors = torch.lerp(luma.expand_as(colors), colors, saturation).clamp_(0, 1)
        toned = torch.cat([colors.mul_(alpha), alpha], dim=2)
        return torch.where(is_applied[:, None, None, None, None], toned, rgba)
