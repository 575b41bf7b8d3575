"""Structural similarity (SSIM; Wang et al. 2004): its Gaussian window, and 1 - SSIM as a loss."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lgm.types import Prediction

WINDOW_RADIUS, _WINDOW_SIGMA = 5, 1.5  # the common 11x11 Gaussian window
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # (k1 * range)² and (k2 * range)²

Border = Literal["mirrored", "cropped"]
BORDERS = ("mirrored", "cropped")


class StructuralDissimilarity(nn.Module):
    """1 - SSIM of the rgb images, both over the same background; the mean over images. 0 where they are the
    same.

    Beside L1 at 0.8 to 0.2 it is the loss of 3D Gaussian Splatting (Kerbl et al. 2023).
    """

    def forward(self, prediction: Prediction) -> Float[Tensor, ""]:
        """Of rendered, unclamped, against target images [B, V, 3, H, W]."""
        x, y = prediction.render.images, prediction.batch.target.images
        if min(x.shape[-2:]) <= WINDOW_RADIUS:
            raise ValueError(
                f"SSIM needs images of at least {WINDOW_RADIUS + 1} pixels a side, "
                f"got {x.shape[-2]} × {x.shape[-1]}"
            )
        # Variances are differences of nearly equal numbers: bf16 would leave nothing of them.
        with torch.autocast(x.device.type, enabled=False):
            return 1 - _ssim(x.float().flatten(0, 1), y.float().flatten(0, 1)).mean()


def _ssim(x: Float[Tensor, "M 3 H W"], y: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M 3 H W"]:
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (blurred(z) for z in (x, y, x * x, y * y, x * y))
    # Rounding can make the variance of a flat region negative.
    variance_x, variance_y = (mean_xx - mean_x**2).clamp_min(0), (mean_yy - mean_y**2).clamp_min(0)
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * (mean_xy - mean_x * mean_y) + SSIM_C2) / (variance_x + variance_y + SSIM_C2)
    return luminance * structure


def blurred(x: Float[Tensor, "M C H W"], border: Border = "mirrored") -> Float[Tensor, "M C h w"]:
    """Weighted means over SSIM's window, [M, C, H, W]; "cropped" leaves out the pixels nearer to the border
    than the window reaches."""
    # As two products with a banded matrix: a hundred times more multiplications than the window has,
    # and still several times faster than a convolution or shifted sums, which wait for memory.
    rows, columns = (_window_matrix(size, border, x.device) for size in x.shape[-2:])
    return rows @ (x @ columns.T)


@lru_cache  # a copy to the device each time would wait for it
@torch.inference_mode(False)
def _window_matrix(size: int, border: Border, device: torch.device) -> Float[Tensor, "n size"]:
    """The Gaussian window as a banded matrix, one row per pixel of a line: n is `size`, or what is left
    of it inside the border."""
    reach = torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (reach / _WINDOW_SIGMA).square())
    weights /= weights.sum()
    pixels = F.pad(torch.arange(size, dtype=torch.float64)[None], (WINDOW_RADIUS,) * 2, mode="reflect")[0]
    windows = pixels.long().unfold(0, len(weights), 1)  # [size, 11]: the pixels of each window
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, windows, weights.expand(size, -1))
    if border == "cropped":
        matrix = matrix[WINDOW_RADIUS:-WINDOW_RADIUS]
    return matrix.float().to(device)
