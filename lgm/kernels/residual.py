"""Biases, residuals and their gradients around convolutions, each as one pass over memory.

PyTorch adds a convolution's bias in a pass of its own, at a third of the memory's speed, and sums the bias's
gradient at a quarter of it. Nothing here has a graph; all maps are channels-last.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_TILE = 4096  # numbers that a program holds
_MOST_CHANNELS = 128  # channels of such a tile
_PROGRAMS = 1024  # programs of a sum, at least, where there is enough work
_MOST_STEPS = 32  # blocks that such a program goes through


def scaled_sum(
    x: Float[Tensor, "N C h w"],
    added: Float[Tensor, "N C h w"] | None,
    bias: Float[Tensor, " C"],
    scale: float = 1.0,
    in_place: bool = False,
) -> Float[Tensor, "N C h w"]:
    """(x + added + bias) * scale in x's precision, rounded once; in_place: written to x."""
    from lgm.kernels.triton_kernels.residual import scaled_sum_kernel

    y = x if in_place else torch.empty_like(x)
    (blocks, across), size, block = _tiles(x)
    with torch.cuda.device_of(x):
        scaled_sum_kernel[(blocks, across)](
            x, x if added is None else added, bias, y, *size, scale, ADDED=added is not None, **block
        )
    return y


def channel_sums(x: Float[Tensor, "N C h w"]) -> Float[Tensor, " C"]:
    """The gradient of a bias: the sum over images and pixels [C], in float32, in two deterministic steps."""
    from lgm.kernels.triton_kernels.residual import channel_sums_kernel

    (blocks, across), size, block = _tiles(x)
    steps = min(_MOST_STEPS, 1 << (max(1, blocks * across // _PROGRAMS) - 1).bit_length())
    rows = -(-blocks // steps)
    sums = x.new_empty(rows, x.shape[1], dtype=torch.float32)
    with torch.cuda.device_of(x):
        channel_sums_kernel[(rows, across)](x, sums, *size, STEPS=steps, **block)
    return sums.sum(0)


def _tiles(x: Tensor) -> tuple[tuple[int, int], tuple[int, int], dict[str, int]]:
    """Blocks of pixels and of channels, pixels and channels, and the size of a block."""
    assert x.is_contiguous(memory_format=torch.channels_last), "pixels lie one after the other"
    num_channels = x.shape[1]
    num_pixels = x.shape[0] * x.shape[2] * x.shape[3]
    channels = min(1 << (num_channels - 1).bit_length(), _MOST_CHANNELS)
    pixels = _TILE // channels
    grid = (-(-num_pixels // pixels), -(-num_channels // channels))
    return grid, (num_pixels, num_channels), {"PIXELS": pixels, "CHANNELS": channels}
