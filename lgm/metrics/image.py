"""Values per image. Means are taken by whoever knows which images count.

A mean of per-batch means is no mean of images as soon as batches differ in size, so nothing here
reduces over the leading axes. All of it runs in float32, whatever the autocast around it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

PSNR_CAP_DB = 100.0  # identical images have no finite PSNR; a mean over images needs one

_SSIM_SIGMA = 1.5  # of the common 11x11 Gaussian window
_SSIM_MIN_SIZE = 6  # the window's reach, 5 pixels, is mirrored at the border
_SSIM_CHUNK = 64  # torchmetrics holds about ten copies of what it is given


def psnr(
    images: Float[Tensor, "*batch 3 H W"], targets: Float[Tensor, "*batch 3 H W"]
) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio of each image in dB, for a peak of 1; at most `PSNR_CAP_DB`.

    Images are clamped to 0..1 first: what a screen shows is what is measured.
    """
    images, targets = _comparable(images, targets)
    with torch.autocast(images.device.type, enabled=False):
        mse = (images - targets).square().mean(dim=(-3, -2, -1))
        return (-10.0 * torch.log10(mse)).clamp_max(PSNR_CAP_DB)


def ssim(
    images: Float[Tensor, "*batch 3 H W"], targets: Float[Tensor, "*batch 3 H W"]
) -> Float[Tensor, "*batch"]:
    """Structural similarity of each image: 11x11 Gaussian window (sigma 1.5), data range 1.

    As torchmetrics defines it: mirrored at the border, mean over all pixels and channels.
    """
    images, targets = _comparable(images, targets)
    if min(images.shape[-2:]) < _SSIM_MIN_SIZE:
        raise ValueError(
            f"ssim needs images of at least {_SSIM_MIN_SIZE}x{_SSIM_MIN_SIZE} pixels, "
            f"got {images.shape[-2]}x{images.shape[-1]}"
        )
    flat, flat_targets = (x.reshape(-1, *x.shape[-3:]) for x in (images, targets))  # [M, 3, H, W]
    chunks = zip(flat.split(_SSIM_CHUNK), flat_targets.split(_SSIM_CHUNK), strict=True)
    with torch.autocast(images.device.type, enabled=False):
        return torch.cat([_ssim(x, y) for x, y in chunks]).view(images.shape[:-3])


def alpha_iou(
    alphas: Float[Tensor, "*batch 1 H W"],
    targets: Float[Tensor, "*batch 1 H W"],
    threshold: float = 0.5,
) -> Float[Tensor, "*batch"]:
    """Overlap of the two silhouettes, intersection over union; 1 where both are empty."""
    alphas, targets = _comparable(alphas, targets)
    ours, theirs = alphas >= threshold, targets >= threshold
    intersection = (ours & theirs).sum(dim=(-3, -2, -1)).float()
    union = (ours | theirs).sum(dim=(-3, -2, -1)).float()
    return torch.where(union > 0, intersection / union.clamp_min(1), torch.ones_like(union))


def _comparable(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if images.shape != targets.shape or images.ndim < 3:
        raise ValueError(
            f"metrics compare images [..., C, H, W] of one shape, "
            f"got {tuple(images.shape)} and {tuple(targets.shape)}"
        )
    return images.float().clamp(0, 1), targets.float().clamp(0, 1)


def _ssim(images: Float[Tensor, "M 3 H W"], targets: Float[Tensor, "M 3 H W"]) -> Float[Tensor, " M"]:
    values = structural_similarity_index_measure(
        images, targets, sigma=_SSIM_SIGMA, data_range=1.0, reduction="none"
    )
    return values.reshape(-1)
