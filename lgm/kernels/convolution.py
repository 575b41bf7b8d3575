"""Convolutions whose bias costs next to nothing, and the gradients of any."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lgm.kernels.choice import kernels_run
from lgm.kernels.norm import autocast_dtype
from lgm.kernels.residual import channel_sums, scaled_sum

_CHANNELS = 16  # cuDNN convolves as many, the last of them zeros, in a fifth of the time that 9 take
_TAPS = 9  # of a 3×3 kernel
_WEIGHT_BLOCK = 64  # channels that a program moves
# Of a 3×3 kernel from 384 to 128 channels, cuDNN sums the gradient over pixels without dividing them among
# enough programs: a quarter of the rate that it has from 128 to 128 (`_narrow_weight_gradient`).
_NARROW = 128


class Conv2d(nn.Conv2d):
    """nn.Conv2d.

    fuse: let our own kernels add the bias and sum its gradient where they run.
    """

    fuse = False

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N D H W"]:
        """The convolution of images [N, C, h, w], in autocast's precision; fused with its bias where kernels
        run.
        """
        if not self.fuse or not kernels_run(x) or self.bias is None:
            return super().forward(x)
        return _Convolution.apply(x, self.weight, self.bias, self.stride, self.padding, autocast_dtype(x))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.channels, ctx.x_dtype = x.shape[1], x.dtype
        # Zero padding of the first layer's few channels up to a multiple that tensor cores take.
        spare = -x.shape[1] % _CHANNELS if x.shape[1] < 2 * _CHANNELS else 0
        copied = half_copy(weight, dtype)
        x = x.to(dtype)
        if spare:
            x, copied = (F.pad(tensor, (0, 0, 0, 0, 0, spare)) for tensor in (x, copied))
        x, copied = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, copied))
        # Both in half precision already: the backward pass casts nothing again.
        ctx.save_for_backward(x, copied, weight)
        ctx.options = stride, padding
        y = convolve(x, copied, stride, padding)
        return scaled_sum(y, None, bias, in_place=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, copied, weight = ctx.saved_tensors
        grad_y = grad_y.contiguous(memory_format=torch.channels_last)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_x, grad_weight = convolution_gradients(  # type: ignore[misc]
            grad_y, x, copied, *ctx.options, needs_x=needs_x, needs_weight=needs_weight
        )
        if grad_x is not None:
            grad_x = grad_x[:, : ctx.channels].to(ctx.x_dtype)
        if grad_weight is not None:
            grad_weight = as_parameter(grad_weight[:, : ctx.channels], weight)
        grad_bias = channel_sums(grad_y).to(weight.dtype) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None, None, None


def convolve(
    x: Float[Tensor, "N C h w"],
    weight: Float[Tensor, "D C k l"],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
) -> Float[Tensor, "N D H W"]:
    """A convolution without a bias, channels-last, in the precision of x and weight, whatever the
    autocast.
    """
    with torch.autocast(x.device.type, enabled=False):
        y = F.conv2d(x, weight, None, stride, padding)
    return y.contiguous(memory_format=torch.channels_last)


def convolution_gradients(
    grad_y: Float[Tensor, "N D H W"],
    x: Float[Tensor, "N C h w"],
    weight: Float[Tensor, "D C k l"],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    needs_x: bool = True,
    needs_weight: bool = True,
) -> tuple[Float[Tensor, "N C h w"] | None, Float[Tensor, "D C k l"] | None]:
    """Gradients by x, channels-last, and by the weight; None for one that nobody needs."""
    mask = (needs_x, needs_weight, False)
    if not any(mask):
        return None, None
    if needs_weight and _is_narrow(weight, stride):
        grad_x, _ = convolution_gradients(grad_y, x, weight, stride, padding, needs_x, needs_weight=False)
        return grad_x, _narrow_weight_gradient(grad_y, x, weight, padding)
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_y, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1, mask
    )
    if needs_x:
        grad_x = grad_x.contiguous(memory_format=torch.channels_last)
    return grad_x if needs_x else None, grad_weight if needs_weight else None


def _is_narrow(weight: Tensor, stride: tuple[int, int]) -> bool:
    num_out, num_in, *taps = weight.shape
    is_split = num_in > 2 * _NARROW and num_in % _NARROW == 0
    return num_out == _NARROW and is_split and taps == [3, 3] and tuple(stride) == (1, 1)


def _narrow_weight_gradient(
    grad_y: Float[Tensor, "N D H W"],
    x: Float[Tensor, "N C h w"],
    weight: Float[Tensor, "D C k l"],
    padding: tuple[int, int],
) -> Float[Tensor, "D C k l"]:
    """The weight's gradient, a block of input channels at a time, each of which is copied first."""
    grads = []
    for x_block, block in zip(x.split(_NARROW, dim=1), weight.split(_NARROW, dim=1), strict=True):
        x_block, block = (part.contiguous(memory_format=torch.channels_last) for part in (x_block, block))
        _, grad = convolution_gradients(grad_y, x_block, block, (1, 1), padding, needs_x=False)
        grads.append(grad)
    return torch.cat(grads, dim=1)


def half_copy(weight: Float[Tensor, "D C k l"], dtype: torch.dtype) -> Float[Tensor, "D C k l"]:
    """A kernel in another precision and channels-last, in one pass."""
    if not _is_permuted(weight, dtype):
        return weight.to(dtype, memory_format=torch.channels_last)
    from lgm.kernels.triton_kernels.weights import to_channels_last_kernel

    copied = torch.empty_like(weight, dtype=dtype, memory_format=torch.channels_last)
    grid, sizes = _weight_tiles(weight)
    with torch.cuda.device_of(weight):
        to_channels_last_kernel[grid](weight, copied, *sizes, BLOCK=_WEIGHT_BLOCK)
    return copied


def as_parameter(grad: Tensor, parameter: Tensor, scale: float = 1.0) -> Tensor:
    """A gradient times `scale` in its parameter's precision and layout, in one pass."""
    result = torch.empty_like(parameter)
    if not _is_permuted(parameter, grad.dtype) or not grad.is_contiguous(memory_format=torch.channels_last):
        result.copy_(grad)  # to float32 first: in half precision small products would be lost
        return result if scale == 1.0 else result.mul_(scale)
    from lgm.kernels.triton_kernels.weights import from_channels_last_kernel

    grid, sizes = _weight_tiles(parameter)
    with torch.cuda.device_of(grad):
        from_channels_last_kernel[grid](grad, result, *sizes, scale, BLOCK=_WEIGHT_BLOCK)
    return result


def _is_permuted(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether a copy moves numbers as well, which PyTorch's reads or writes one by one: a 3×3 kernel's, in
    memory [D, C, 9], to or from [D, 9, C]."""
    is_kernel = weight.ndim == 4 and weight.shape[2] * weight.shape[3] == _TAPS and weight.is_contiguous()
    return is_kernel and weight.shape[1] >= _WEIGHT_BLOCK and weight.dtype != dtype


def _weight_tiles(weight: Tensor) -> tuple[tuple[int, int], tuple[int]]:
    return (weight.shape[0], -(-weight.shape[1] // _WEIGHT_BLOCK)), (weight.shape[1],)
