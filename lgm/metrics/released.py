"""The PSNR that the released program of LGM prints, to compare its logs with runs of this one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.preparation.prepare import composited_again
from lgm.types import Prediction


@torch.no_grad()
def released_errors(prediction: Prediction) -> Float[Tensor, " B"]:
    """The mean squared error of each object that `released_psnr` takes the logarithm of, in float32.

    Over pixels, channels and all target views, which there are the inputs too; of rendered images as they
    are, not clamped to 0..1; against targets that are composited over their background twice. The
    prediction's own targets are composited once, as evaluation prepares them.
    """
    target, background = prediction.batch.target, prediction.batch.background
    rendered = prediction.render.images
    if background is None:
        background = torch.ones(3, device=rendered.device)  # white
    with torch.autocast(rendered.device.type, enabled=False):
        behind = background.float().unsqueeze(-2)  # one background for all views: [B, 1, 3]
        truth = composited_again(target.images.float(), target.alphas.float(), behind)
        return (rendered.float() - truth).square().flatten(1).mean(dim=1)


def released_psnr(prediction: Prediction) -> Float[Tensor, ""]:
    """-10 log10 of the squared error of a whole batch, in dB: what `main.py` prints of its last batch.

    One logarithm of the mean, where `lgm.metrics.psnr` is the logarithm of each image: an image that fails
    weighs more, and the mean of logarithms is never below it.
    """
    return -10 * torch.log10(released_errors(prediction).mean())
