"""LPIPS as a term of the loss."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from lgm.losses.perceptual.lpips import LPIPS
from lgm.types import RenderOutput, Views


class PerceptualLPIPS(nn.Module):
    """Mean LPIPS of the rgb pictures, both over the same background.

    size: larger pictures are shrunk to this longer side first, as the paper does with 512² (256);
        smaller ones stay as they are, where the original would enlarge them: the same information at
        several times the cost. None compares at the pictures' own size.
    net, weights_path, download: see `LPIPS`.
    """

    def __init__(
        self,
        net: str = "vgg",
        weights_path: str | Path | None = None,
        size: int | None = 256,
        download: bool = True,
    ) -> None:
        super().__init__()
        self.lpips = LPIPS(net, weights_path, size, download)

    def forward(self, render: RenderOutput, target: Views) -> Float[Tensor, ""]:
        return self.lpips(render.images, target.images).mean()
