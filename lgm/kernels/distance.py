"""The parts of a perceptual distance as operations on a GPU, over feature maps that are channels-last.

In PyTorch a layer's comparison writes the normalised maps, their difference and its square to memory in
float32, and all of that again in the backward pass. Fused, both maps are read once, and the distance and its
gradient come out: the gradient of a distance asks for nothing that the forward pass does not know.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_TILE = 2048  # numbers of each map that a program holds
_STEPS = 8  # such tiles that it goes through
_MOST_CHANNELS = 64  # side by side, where they need not all be


def fused_distance(
    x: Float[Tensor, "M C h w"],
    y: Float[Tensor, "M C h w"],
    weight: Float[Tensor, " C"],
    eps: float,
    gradient_scale: float | None = None,
) -> tuple[Float[Tensor, " M"], Float[Tensor, "M C h w"] | None]:
    """LPIPS's distance of one layer [M], and its gradient by x.

    weight · (x / (|x| + eps) - y / (|y| + eps))², a mean over pixels.

    x, y: outputs of a ReLU, channels-last. Sums are float32.
    gradient_scale: what the gradient is multiplied by, so that half precision can hold it; None computes
        none. It is the gradient by what the ReLU was given: 0 where x is 0.
    """
    from lgm.kernels.triton_kernels.distance import distance_kernel

    x, y = (maps.contiguous(memory_format=torch.channels_last) for maps in (x, y))
    count, num_channels, height, width = x.shape
    num_pixels = height * width
    channels = 1 << (num_channels - 1).bit_length()
    pixels = max(1, _TILE // channels)
    blocks = -(-num_pixels // (pixels * _STEPS))
    # One partial sum per program, added by PyTorch: no atomics, the same bits each time.
    sums = x.new_empty(count, blocks, dtype=torch.float32)
    grad = x if gradient_scale is None else torch.empty_like(x)
    with torch.cuda.device_of(x):
        distance_kernel[(blocks, count)](
            x, y, weight.float(), sums, grad, num_pixels, num_channels,
            (gradient_scale or 0.0) / num_pixels, eps,
            GRADIENT=gradient_scale is not None, STEPS=_STEPS, PIXELS=pixels, CHANNELS=channels,
        )  # fmt: skip
    return sums.sum(1) / num_pixels, None if gradient_scale is None else grad


def conv_relu(
    x: Float[Tensor, "M C h w"], weight: Float[Tensor, "D C k l"], bias: Float[Tensor, " D"]
) -> Float[Tensor, "M D h w"]:
    """A 3×3 convolution, its bias and ReLU as one kernel of cuDNN's: PyTorch adds the bias in a pass of its
    own, at a third of the memory's speed. No gradient passes through."""
    if x.is_cuda:
        return torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)
    return F.conv2d(x, weight, bias, padding=1).relu_()


def conv_relu_gradient(
    grad_y: Float[Tensor, "M D h w"], x: Float[Tensor, "M C h w"], weight: Float[Tensor, "D C 3 3"]
) -> Float[Tensor, "M C h w"]:
    """The gradient by x, whose values do not matter; grad_y is 0 where the ReLU gave 0."""
    options = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, False, False))
    return torch.ops.aten.convolution_backward(grad_y, x, weight, None, *options)[0]


def fused_max_pool(x: Float[Tensor, "M C h w"]) -> Float[Tensor, "M C h//2 w//2"]:
    """The largest of 2×2 pixels, without the indices that PyTorch writes beside them. No gradient passes
    through; a last row or column that is alone is left out."""
    from lgm.kernels.triton_kernels.distance import pool_kernel

    count, channels, height, width = x.shape
    shape = (count, channels, height // 2, width // 2)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    grid, block = _windows(x)
    with torch.cuda.device_of(x):
        pool_kernel[grid](
            x.contiguous(memory_format=torch.channels_last), y, height, width, channels, **block
        )
    return y


def add_pool_gradient(
    grad: Float[Tensor, "M C h w"], x: Float[Tensor, "M C h w"], grad_pooled: Float[Tensor, "M C h//2 w//2"]
) -> None:
    """Add to `grad` what `fused_max_pool(x)` passes on of its gradient to what x's ReLU was given."""
    from lgm.kernels.triton_kernels.distance import pool_backward_kernel

    assert grad.is_contiguous(memory_format=torch.channels_last), "it is added to in place"
    x, grad_pooled = (maps.contiguous(memory_format=torch.channels_last) for maps in (x, grad_pooled))
    grid, block = _windows(x)
    with torch.cuda.device_of(x):
        pool_backward_kernel[grid](x, grad_pooled, grad, *x.shape[2:], x.shape[1], **block)


def _windows(x: Tensor) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Programs (blocks of windows, images, blocks of channels) and the size of a block."""
    count, num_channels, height, width = x.shape
    channels = min(1 << (num_channels - 1).bit_length(), _MOST_CHANNELS)
    windows = max(1, _TILE // channels)
    grid = (-(-(height // 2) * (width // 2) // windows), count, -(-num_channels // channels))
    return grid, {"WINDOWS": windows, "CHANNELS": channels}
