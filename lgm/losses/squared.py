"""Squared errors, of all pixels alike or image by image."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Added to an image's mean squared error, so that its logarithm stays finite: 40 dB.
_FLOOR = 1e-4


def squared_error(
    prediction: Float[Tensor, "B V C H W"], target: Float[Tensor, "B V C H W"], in_decibels: bool
) -> Float[Tensor, ""]:
    """The mean squared error; or in decibels, the mean over images of ten times its logarithm.

    Averages of PSNR are of images' logarithms: an image that is almost right weighs as much there as one
    that is all wrong, while the mean of the squares nearly leaves it alone. HINet and NAFNet, which restore
    images, are trained so. Of values in 0..1 it is minus the PSNR, down to -40 dB.
    """
    if not in_decibels:
        return F.mse_loss(prediction, target)
    errors = (prediction - target).square().mean(dim=(2, 3, 4))
    return 10 * torch.log10(errors + _FLOOR).mean()
