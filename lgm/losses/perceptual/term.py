"""Perceptual distances as terms of the loss."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from lgm.losses.perceptual.features import FeatureDistance
from lgm.losses.perceptual.hed import HEDDistance
from lgm.losses.perceptual.lpips import LPIPS
from lgm.types import Prediction


class PerceptualTerm(nn.Module):
    """Mean distance of the rgb images, both over the same background; targets get no gradient."""

    def __init__(self, distance: FeatureDistance) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, prediction: Prediction) -> Float[Tensor, ""]:
        """Mean over images [B, V] of the distance between rendered and target images."""
        target = prediction.batch.target.images
        return self.distance(prediction.render.images, target.detach()).mean()


class PerceptualLPIPS(PerceptualTerm):
    """Mean LPIPS.

    size: larger images are shrunk to this longer side first, as the paper does with 512² (256);
        smaller ones stay as they are, where the original would enlarge them: the same information at
        several times the cost. None compares at the images' own size.
    net, weights_path, download: see `LPIPS`.
    """

    def __init__(
        self,
        net: str = "vgg",
        weights_path: str | Path | None = None,
        size: int | None = 256,
        download: bool = True,
    ) -> None:
        super().__init__(LPIPS(net, weights_path, size, download))


class PerceptualHED(PerceptualTerm):
    """Mean distance to the trunk of HED's edge detector, which is not LPIPS: see `HEDDistance`.

    size: see `PerceptualLPIPS`.
    """

    def __init__(self, weights_path: str | Path | None = None, size: int | None = 256) -> None:
        super().__init__(HEDDistance(weights_path, size))
