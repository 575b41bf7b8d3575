"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), version 0.1: equal to the `lpips` package's.

The trunk is a frozen classifier, and what each channel counts for was learned from people's judgements.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lgm.losses.perceptual.features import FeatureDistance
from lgm.losses.perceptual.trunks import TRUNKS, normalised
from lgm.losses.perceptual.weights import find_weights, linear_weights

# What ImageNet's images are normalised by, for images in -1..1.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS(FeatureDistance):
    """Perceptual distance of each image in 0..1, 0 for equal ones; see `FeatureDistance` for where it
    runs, and its `forward` for what gets a gradient.

    net: "vgg" (VGG16, what losses and most published figures use) or "alex".
    weights_path: torchvision's file, `vgg16-397923af.pth` or `alexnet-owt-7be5be79.pth`; None looks into
        torch hub's cache.
    size: images whose longer side is larger are shrunk to it (bilinear), and smaller ones left alone;
        None leaves all.
    download: whether a file that is nowhere is fetched.

    Raises ValueError for a value or a file that does not fit, FileNotFoundError for a path that is none,
    MissingWeights where the weights are not to be had.
    """

    def __init__(
        self,
        net: str = "vgg",
        weights_path: str | Path | None = None,
        size: int | None = None,
        download: bool = True,
    ) -> None:
        if net not in TRUNKS:
            raise ValueError(f"net={net!r} is no LPIPS network; choose one of {', '.join(TRUNKS)}")
        spec = TRUNKS[net]
        super().__init__(f"LPIPS with net={net}", spec.min_size, size)
        weights = linear_weights(net)
        self._freeze(spec.load(find_weights(spec.url, spec.size, weights_path, download)), weights)

    def standardised(self, images: Float[Tensor, "M 3 h w"]) -> Float[Tensor, "M 3 h w"]:
        """From 0..1 to -1..1, then ImageNet's mean and deviation in that range, as the `lpips` package
        scales.
        """
        return normalised(images.float() * 2 - 1, _SHIFT, _SCALE)
