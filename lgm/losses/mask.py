"""Losses on coverage."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lgm.types import RenderOutput, Views


class AlphaMSE(nn.Module):
    """Mean squared error of the alpha maps."""

    def forward(self, render: RenderOutput, target: Views) -> Float[Tensor, ""]:
        return F.mse_loss(render.alphas, target.alphas)
