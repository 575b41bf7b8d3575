"""Twice the resolution by nearest neighbours and then a 3×3 convolution, as one convolution of the small map.

Of three rows of the doubled map that a kernel covers, two are the same: each of the four pixels that come of
one sees 2×2 pixels of the small map, with sums of the kernel's weights. So one convolution with 2×2 kernels
and four times the channels computes them all, 16 products in place of 36 (the sub-pixel convolution of Shi et
al. 2016, arXiv 1609.05158, of kernels that are given), and the doubled map is never in memory. Same numbers
but for their rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.kernels.choice import kernels_run
from lgm.kernels.convolution import Conv2d, convolution_gradients, convolve
from lgm.kernels.norm import autocast_dtype
from lgm.kernels.residual import channel_sums
from lgm.kernels.resize import double

_LEAST_PIXELS = 8192  # of all small maps; of fewer the sums of weights cost more than products are saved
_TILE = 2048  # numbers that a program holds
_MOST_CHANNELS = 128  # channels of such a tile


def double_and_convolve(x: Float[Tensor, "N C h w"], layer: Conv2d) -> Float[Tensor, "N D 2*h 2*w"]:
    """Nearest-neighbour upsampling by 2 and a 3×3 convolution, as one sub-pixel convolution where kernels
    run.

    layer: 3×3, with a bias, and padding that keeps the size. Its `fuse` decides as everywhere.
    """
    if layer.fuse and kernels_run(x) and _num_pixels(x) >= _LEAST_PIXELS:
        return _DoubleAndConvolve.apply(x, layer.weight, layer.bias, autocast_dtype(x))
    return layer(double(x, layer.fuse))


def _num_pixels(x: Tensor) -> int:
    return x.shape[0] * x.shape[2] * x.shape[3]


class _DoubleAndConvolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.x_dtype = x.dtype
        x = x.to(dtype).contiguous(memory_format=torch.channels_last)
        # Sums of weights in the parameter's own precision, rounded once.
        phase_kernels = phase_weights(weight).to(dtype, memory_format=torch.channels_last)
        phases = convolve(x, phase_kernels)  # [N, 4*D, h+1, w+1]
        ctx.save_for_backward(x, phase_kernels, weight)
        return interleaved(phases, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, phase_kernels, weight = ctx.saved_tensors
        grad_y = grad_y.to(x.dtype).contiguous(memory_format=torch.channels_last)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_bias = channel_sums(grad_y).to(weight.dtype) if needs_bias else None
        grad_x, grad_phases = convolution_gradients(
            separated(grad_y), x, phase_kernels, needs_x=needs_x, needs_weight=needs_weight
        )
        grad_x = None if grad_x is None else grad_x.to(ctx.x_dtype)
        grad_weight = phase_weights_gradient(grad_phases, weight) if needs_weight else None
        return grad_x, grad_weight, grad_bias, None


def phase_weights(weight: Float[Tensor, "D C 3 3"]) -> Float[Tensor, "P C 2 2"]:
    """Kernels of the pixels at even rows and columns, at odd columns, at odd rows, and at both."""
    # An even row sees the one above once and its own twice; an odd row its own twice and the one below.
    rows = _summed(weight, 2)  # [2, D, C, 2, 3]
    return _summed(rows, 4).transpose(0, 1).flatten(0, 2)  # of [rows, columns, D, C, 2, 2]


def _summed(weight: Tensor, dim: int) -> Tensor:
    first, middle, last = weight.unbind(dim)
    even = torch.stack([first, middle + last], dim)
    return torch.stack([even, torch.stack([first + middle, last], dim)])


def phase_weights_gradient(
    grad: Float[Tensor, "P C 2 2"], weight: Float[Tensor, "D C 3 3"]
) -> Float[Tensor, "D C 3 3"]:
    """The transpose of `phase_weights`, in the weight's precision and layout."""
    grad = grad.to(weight.dtype).unflatten(0, (2, 2, -1)).transpose(0, 1)  # columns, rows, D, C, 2, 2
    rows = _spread(grad, 4)  # [rows, D, C, 2, 3]
    return torch.empty_like(weight).copy_(_spread(rows, 2))


def _spread(grad: Tensor, dim: int) -> Tensor:
    """Undo `_summed`: the first axis is of even and odd."""
    (even_first, even_last), (odd_first, odd_last) = (phase.unbind(dim) for phase in grad.unbind(0))
    return torch.stack([even_first + odd_first, even_last + odd_first, even_last + odd_last], dim)


def interleaved(phases: Float[Tensor, "N P p q"], bias: Float[Tensor, " D"]) -> Float[Tensor, "N D H W"]:
    """[N, 4*D, h+1, w+1] to [N, D, 2*h, 2*w]: each pixel of a phase in its place, with the bias added."""
    from lgm.kernels.triton_kernels.upsample import interleave_kernel

    count, of_phases, height, width = phases.shape
    shape = (count, of_phases // 4, 2 * (height - 1), 2 * (width - 1))
    y = torch.empty(shape, dtype=phases.dtype, device=phases.device, memory_format=torch.channels_last)
    grid, block = _tiles(y)
    with torch.cuda.device_of(y):
        interleave_kernel[grid](phases, bias, y, *shape[2:], shape[1], **block)
    return y


def separated(grad_y: Float[Tensor, "N D H W"]) -> Float[Tensor, "N P p q"]:
    """The transpose of `interleaved`: 0 where a phase's pixel is not used."""
    from lgm.kernels.triton_kernels.upsample import separate_kernel

    count, channels, height, width = grad_y.shape
    shape = (count, 4 * channels, height // 2 + 1, width // 2 + 1)
    grad = torch.empty(shape, dtype=grad_y.dtype, device=grad_y.device, memory_format=torch.channels_last)
    grid, block = _tiles(grad)
    with torch.cuda.device_of(grad):
        separate_kernel[grid](grad_y, grad, height, width, channels, **block)
    return grad


def _tiles(y: Tensor) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Programs (blocks of pixels, images, blocks of channels) and the size of a block."""
    count, num_channels, height, width = y.shape
    channels = min(1 << (num_channels - 1).bit_length(), _MOST_CHANNELS)
    pixels = _TILE // channels
    grid = (-(-height * width // pixels), count, -(-num_channels // channels))
    return grid, {"PIXELS": pixels, "CHANNELS": channels}
