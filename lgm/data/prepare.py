"""What happens to a whole batch on the device before the network sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from lgm.cameras import Cameras, canonicalise
from lgm.types import Batch, Views


class Preparation:
    """Resize, put over the background, and move the world so that the first input is canonical.

    input_size, target_size: height and width of the network's and of the supervised pictures.
    background: rgb in 0..1.
    radius: where the first input camera stands in the canonical frame.
    """

    def __init__(
        self,
        input_size: int,
        target_size: int,
        background: Sequence[float] = (1.0, 1.0, 1.0),
        radius: float = 1.5,
    ) -> None:
        self.input_size = input_size
        self.target_size = target_size
        self.background = tuple(background)
        self.radius = radius

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        reference = batch.input.cameras.c2w[:, 0]
        return Batch(
            input=self._prepare(batch.input, self.input_size, reference),
            target=self._prepare(batch.target, self.target_size, reference),
            uids=batch.uids,
        )

    def _prepare(self, views: Views, size: int, reference: Float[Tensor, "B 4 4"]) -> Views:
        colors, alphas = premultiplied(views.images, views.alphas, size)
        background = colors.new_tensor(self.background).view(3, 1, 1)
        cameras = views.cameras
        return replace(
            views,
            images=colors + background * (1 - alphas),
            alphas=alphas,
            cameras=Cameras(canonicalise(cameras.c2w, reference, self.radius), cameras.K_norm),
        )


def premultiplied(
    images: UInt8[Tensor, "B V 3 H W"], alphas: UInt8[Tensor, "B V 1 H W"], size: int
) -> tuple[Float[Tensor, "B V 3 h w"], Float[Tensor, "B V 1 h w"]]:
    """Straight 8-bit colour to premultiplied float, resized with antialiasing.

    Multiplied before it is resized: colours of transparent pixels mean nothing and must not bleed
    into the object's edge.
    """
    alpha = alphas.float() / 255
    rgba = torch.cat([images.float() / 255 * alpha, alpha], dim=2)
    if rgba.shape[-2:] != (size, size):
        num_views = rgba.shape[1]
        rgba = rearrange(rgba, "b v c h w -> (b v) c h w")
        rgba = F.interpolate(rgba, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        rgba = rearrange(rgba.clamp(0, 1), "(b v) c h w -> b v c h w", v=num_views)
    return rgba[:, :, :3], rgba[:, :, 3:]
