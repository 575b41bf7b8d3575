"""Losses on colour."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lgm.types import RenderOutput, Views


class PhotometricMSE(nn.Module):
    """Mean squared error of the rgb pictures, both over the same background."""

    def forward(self, render: RenderOutput, target: Views) -> Float[Tensor, ""]:
        return F.mse_loss(render.images, target.images)
