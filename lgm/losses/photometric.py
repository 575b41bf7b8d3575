"""Losses on colour."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lgm.losses.squared import squared_error
from lgm.types import Prediction


class PhotometricMSE(nn.Module):
    """Mean squared error of the rgb images, both over the same background.

    in_decibels: see `lgm.losses.squared.squared_error`.
    """

    def __init__(self, in_decibels: bool = False) -> None:
        super().__init__()
        self.in_decibels = in_decibels

    def forward(self, prediction: Prediction) -> Float[Tensor, ""]:
        """Of rendered, unclamped, against target images [B, V, 3, H, W]."""
        return squared_error(prediction.render.images, prediction.batch.target.images, self.in_decibels)


class PhotometricL1(nn.Module):
    """Mean absolute error of the rgb images, both over the same background."""

    def forward(self, prediction: Prediction) -> Float[Tensor, ""]:
        """Of rendered, unclamped, against target images [B, V, 3, H, W]."""
        return F.l1_loss(prediction.render.images, prediction.batch.target.images)
