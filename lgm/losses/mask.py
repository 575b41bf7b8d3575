"""Losses on coverage."""

from jaxtyping import Float
from torch import Tensor, nn

from lgm.losses.squared import squared_error
from lgm.types import Prediction


class AlphaMSE(nn.Module):
    """Mean squared error of the alpha maps.

    in_decibels: see `lgm.losses.squared.squared_error`.
    """

    def __init__(self, in_decibels: bool = False) -> None:
        super().__init__()
        self.in_decibels = in_decibels

    def forward(self, prediction: Prediction) -> Float[Tensor, ""]:
        """Of rendered against target alphas [B, V, 1, H, W]."""
        return squared_error(prediction.render.alphas, prediction.batch.target.alphas, self.in_decibels)
