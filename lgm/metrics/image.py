"""Image metrics, one value per image: PSNR, SSIM, LPIPS, alpha IoU, depth error. Callers take the means.

A mean of per-batch means is not the mean over images as soon as batches differ in size, so nothing here
reduces over the leading axes. All of it runs in float32, whatever the autocast around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.losses.perceptual import LPIPS
from lgm.losses.structural import BORDERS, SSIM_C1, SSIM_C2, WINDOW_RADIUS, Border, blurred
from lgm.rendering.precision import full_precision

PSNR_CAP_DB = 100.0  # identical images have no finite PSNR; a mean over images needs one

# Pixels at a time: SSIM holds some fifteen copies of them, LPIPS's first layers 64 channels. A quarter
# of a million keeps a CPU's caches warm, a million fills a GPU.
_CHUNK_PIXELS = {"cpu": 1 << 18}
_CHUNK_PIXELS_ELSEWHERE = 1 << 20


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
    images: Float[Tensor, "*batch 3 H W"],
    targets: Float[Tensor, "*batch 3 H W"],
    border: Border = "mirrored",
) -> Float[Tensor, "*batch"]:
    """Structural similarity of each image: 11x11 Gaussian window (sigma 1.5), data range 1.

    border: "mirrored" lets the window reach over the border into the mirrored image and takes the
        mean over all pixels, as torchmetrics does; "cropped" leaves out the pixels nearer to the border
        than the window reaches, as scikit-image does (gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False).
    """
    return ssims([images], targets, border)[0]


def ssims(
    predictions: Sequence[Float[Tensor, "*batch 3 H W"] | float],
    targets: Float[Tensor, "*batch 3 H W"],
    border: Border = "mirrored",
) -> list[Float[Tensor, "*batch"]]:
    """`ssim` of several predictions of the same targets, whose own moments are computed once.

    predictions: images, or one number for images that have this value everywhere: nearly free.
    """
    if border not in BORDERS:
        raise ValueError(f"ssim's border={border!r} is not one of {', '.join(BORDERS)}")
    smallest = WINDOW_RADIUS + 1 if border == "mirrored" else 2 * WINDOW_RADIUS + 1
    if min(targets.shape[-2:]) < smallest:
        raise ValueError(
            f"ssim needs images of at least {smallest}x{smallest} pixels, "
            f"got {targets.shape[-2]}x{targets.shape[-1]}"
        )
    images = [x if isinstance(x, float) else _comparable(x, targets)[0] for x in predictions]
    targets = targets.float().clamp(0, 1)
    columns: list[list[Tensor]] = [[] for _ in images]
    flat = [x if isinstance(x, float) else x.reshape(-1, *x.shape[-3:]) for x in images]  # [M, 3, H, W]
    with full_precision(targets.device.type):
        for chunk in _chunks(targets.reshape(-1, *targets.shape[-3:])):
            shares = [x if isinstance(x, float) else x[chunk[0]] for x in flat]
            for column, values in zip(columns, _ssims(shares, chunk[1], border), strict=True):
                column.append(values)
    return [torch.cat(column).view(targets.shape[:-3]) for column in columns]


@torch.no_grad()
def lpips(
    network: LPIPS, images: Float[Tensor, "*batch 3 H W"], targets: Float[Tensor, "*batch 3 H W"]
) -> Float[Tensor, "*batch"]:
    """Perceptual distance of each image, clamped to 0..1 first; by VGG16 or AlexNet, as `network` is.

    Published tables of reconstructions are mostly by VGG16, at the size that is evaluated.
    """
    images, targets = _comparable(images, targets)
    flat = images.reshape(-1, *images.shape[-3:])  # [M, 3, H, W]
    # As the package `lpips` computes on such a GPU by default. In float32 it takes most of an evaluation's
    # time and changes the fourth decimal.
    with full_precision(images.device.type, cudnn_convolutions="tf32"):
        values = [network(flat[part], chunk) for part, chunk in _chunks(targets.reshape(flat.shape))]
    return torch.cat(values).view(images.shape[:-3])


def alpha_iou(
    alphas: Float[Tensor, "*batch 1 H W"],
    targets: Float[Tensor, "*batch 1 H W"],
    threshold: float = 0.5,
) -> Float[Tensor, "*batch"]:
    """Intersection over union of two masks, alphas [..., 1, H, W] thresholded; 1 where both are empty."""
    alphas, targets = _comparable(alphas, targets)
    ours, theirs = alphas >= threshold, targets >= threshold
    intersection = (ours & theirs).sum(dim=(-3, -2, -1)).float()
    union = (ours | theirs).sum(dim=(-3, -2, -1)).float()
    return torch.where(union > 0, intersection / union.clamp_min(1), torch.ones_like(union))


def depth_error(
    depths: Float[Tensor, "*batch 1 H W"],
    alphas: Float[Tensor, "*batch 1 H W"],
    target_depths: Float[Tensor, "*batch 1 H W"],
    target_alphas: Float[Tensor, "*batch 1 H W"],
    threshold: float = 0.5,
) -> Float[Tensor, "*batch"]:
    """Mean absolute difference of depth, in the cameras' unit, over the pixels where both silhouettes
    are: where only one is, `alpha_iou` says so. NaN where there is no such pixel.

    depths: alpha-weighted sums, as a renderer gives them. target_depths: 0 where nothing is known.
    """
    with torch.autocast(depths.device.type, enabled=False):
        depths, alphas = depths.float(), alphas.float()
        # A renderer's depth is Σ w z: divided by alpha below, where there is enough of it.
        counted = (alphas >= threshold) & (target_alphas >= threshold) & (target_depths > 0)
        difference = (depths / alphas.clamp_min(threshold) - target_depths).abs()
        total = torch.where(counted, difference, 0.0).sum(dim=(-3, -2, -1))
        return total / counted.sum(dim=(-3, -2, -1))  # 0 / 0 is NaN


def _comparable(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if images.shape != targets.shape or images.ndim < 3:
        raise ValueError(
            f"metrics compare images [..., C, H, W] of one shape, "
            f"got {tuple(images.shape)} and {tuple(targets.shape)}"
        )
    return images.float().clamp(0, 1), targets.float().clamp(0, 1)


def _chunks(images: Float[Tensor, "M 3 H W"]) -> Iterator[tuple[slice, Tensor]]:
    """A few images at a time, so that memory does not grow with their number."""
    pixels = _CHUNK_PIXELS.get(images.device.type, _CHUNK_PIXELS_ELSEWHERE)
    count = max(1, pixels // (images.shape[-2] * images.shape[-1]))
    for start in range(0, len(images), count):
        part = slice(start, start + count)
        yield part, images[part]


def _ssims(
    predictions: Sequence[Tensor | float], targets: Float[Tensor, "M 3 H W"], border: Border
) -> list[Float[Tensor, " M"]]:
    mean_y, mean_yy = blurred(torch.cat([targets, targets.square()]), border).chunk(2)
    # Rounding can make the variance of a flat region negative.
    var_y = (mean_yy - mean_y.square()).clamp_min(0)
    values = []
    for x in predictions:
        if isinstance(x, float):  # neither variance nor covariance
            luminance = (2 * x * mean_y + SSIM_C1) / (x**2 + mean_y.square() + SSIM_C1)
            structure = SSIM_C2 / (var_y + SSIM_C2)
        else:
            moments = blurred(torch.cat([x, x.square(), x * targets]), border)
            mean_x, mean_xx, mean_xy = moments.chunk(3)
            var_x = (mean_xx - mean_x.square()).clamp_min(0)
            luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x.square() + mean_y.square() + SSIM_C1)
            structure = (2 * (mean_xy - mean_x * mean_y) + SSIM_C2) / (var_x + var_y + SSIM_C2)
        values.append((luminance * structure).mean(dim=(-3, -2, -1)))
    return values
