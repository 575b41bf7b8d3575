"""Values per image. Means are taken by whoever knows which images count.

A mean of per-batch means is no mean of images as soon as batches differ in size, so nothing here
reduces over the leading axes. All of it runs in float32, whatever the autocast around it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lgm.losses.perceptual import LPIPS

PSNR_CAP_DB = 100.0  # identical images have no finite PSNR; a mean over images needs one

_WINDOW_RADIUS, _WINDOW_SIGMA = 5, 1.5  # the common 11x11 Gaussian window
_C1, _C2 = 0.01**2, 0.03**2  # (k1 * range)² and (k2 * range)², Wang et al. 2004
_SSIM_CHUNK = 16  # images at a time: some twenty copies of them are held
_LPIPS_CHUNK = 8  # images at a time: the first layers hold 64 channels at full size


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

    Equal to torchmetrics' (mirrored at the border, mean over all pixels and channels), and about
    twice as fast on a CPU, as the window is applied along one axis after the other.
    """
    images, targets = _comparable(images, targets)
    smallest = _WINDOW_RADIUS + 1  # the border is mirrored as far as the window reaches
    if min(images.shape[-2:]) < smallest:
        raise ValueError(
            f"ssim needs images of at least {smallest}x{smallest} pixels, "
            f"got {images.shape[-2]}x{images.shape[-1]}"
        )
    flat, flat_targets = (x.reshape(-1, *x.shape[-3:]) for x in (images, targets))  # [M, 3, H, W]
    chunks = zip(flat.split(_SSIM_CHUNK), flat_targets.split(_SSIM_CHUNK), strict=True)
    with torch.autocast(images.device.type, enabled=False):
        return torch.cat([_ssim(x, y) for x, y in chunks]).view(images.shape[:-3])


@torch.no_grad()
def lpips(
    network: LPIPS, images: Float[Tensor, "*batch 3 H W"], targets: Float[Tensor, "*batch 3 H W"]
) -> Float[Tensor, "*batch"]:
    """Perceptual distance of each image, clamped to 0..1 first; by VGG16 or AlexNet, as `network` is.

    Published tables of reconstructions are mostly by VGG16, at the size that is evaluated.
    """
    images, targets = _comparable(images, targets)
    flat, flat_targets = (x.reshape(-1, *x.shape[-3:]) for x in (images, targets))  # [M, 3, H, W]
    chunks = zip(flat.split(_LPIPS_CHUNK), flat_targets.split(_LPIPS_CHUNK), strict=True)
    with torch.autocast(images.device.type, enabled=False):
        return torch.cat([network(x, y) for x, y in chunks]).view(images.shape[:-3])


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
    moments = torch.cat([images, targets, images.square(), targets.square(), images * targets])
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(moments).chunk(5)
    var_x = (mean_xx - mean_x.square()).clamp_min(0)
    var_y = (mean_yy - mean_y.square()).clamp_min(0)
    cov = mean_xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * cov + _C2) / (var_x + var_y + _C2)
    return (luminance * structure).mean(dim=(-3, -2, -1))


def _blur(x: Float[Tensor, "M C H W"]) -> Float[Tensor, "M C H W"]:
    # A weighted sum of shifted pictures, and no convolution: a GPU may run that in TF32, and the
    # variances above are small differences of large numbers.
    weights = [math.exp(-0.5 * (i / _WINDOW_SIGMA) ** 2) for i in range(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1)]
    weights = [weight / sum(weights) for weight in weights]
    x = F.pad(x, (_WINDOW_RADIUS,) * 4, mode="reflect")
    for axis in (-1, -2):
        size = x.shape[axis] - 2 * _WINDOW_RADIUS
        total = x.narrow(axis, 0, size) * weights[0]
        for shift, weight in enumerate(weights[1:], start=1):
            total.add_(x.narrow(axis, shift, size), alpha=weight)
        x = total
    return x
