"""The score of a validation during training, which must not hide a network that computes NaN."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.metrics.image import psnr
from lgm.types import Prediction


@torch.no_grad()
def validation_psnr(prediction: Prediction) -> Float[Tensor, "B V"]:
    """PSNR of each target view in dB; NaN for all views of an object with a Gaussian that is not finite.

    Such Gaussians are not drawn: their images alone would be a plain background, with a score like any.
    """
    values = psnr(prediction.render.images, prediction.batch.target.images)
    is_finite = prediction.gaussians.packed().isfinite().all(dim=2).all(dim=1)  # [B]
    return torch.where(is_finite[:, None], values, values.new_tensor(float("nan")))
