"""A residual block of the U-Net as one autograd operation, with few passes over memory.

Biases go into the norm that follows, or into the sum at the block's end, which is also where the skip's scale
is. In the backward pass that scale is applied where gradients are read or turned to float32 anyway; the
gradient of the first bias follows from the norm's own sums; and the two gradients of the block's input are
added where the second is written. What the norms gave is not kept: half of the block's activations, which one
more write beside the norm's own sums makes again. Same numbers as from the parts, but for their rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.kernels.convolution import as_parameter, convolution_gradients, convolve, half_copy
from lgm.kernels.norm import norm_backward, norm_forward
from lgm.kernels.residual import channel_sums, scaled_sum


@dataclass(frozen=True)
class BlockOptions:
    """num_groups, eps: of both norms. scale: of the sum at the end. dtype: what convolutions compute with."""

    num_groups: int
    eps: float
    scale: float
    dtype: torch.dtype


def fused_resnet_block(
    x: Float[Tensor, "N C h w"],
    rest: Float[Tensor, "N E h w"] | None,
    norms: tuple[Tensor, Tensor, Tensor, Tensor],
    convolutions: tuple[Tensor, Tensor, Tensor, Tensor],
    shortcut: tuple[Tensor, Tensor] | None,
    options: BlockOptions,
) -> Float[Tensor, "N D h w"]:
    """(conv(silu(norm(conv(silu(norm(x)))))) + shortcut(x)) * scale.

    x: in `options.dtype`, with the channels of `rest` after its own where there is one. norms, convolutions:
    weight and bias of the first and the second. shortcut: of a 1×1 convolution; None is x itself.
    """
    assert x.dtype == options.dtype, "the sum at the end is of one precision"
    return _ResnetBlock.apply(x, rest, *norms, *convolutions, *(shortcut or (None, None)), options)


class _ResnetBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rest: Tensor | None, *parameters: Any) -> Tensor:
        *tensors, options = parameters
        gain1, offset1, gain2, offset2, weight1, bias1, weight2, bias2, weight3, bias3 = tensors
        groups, eps, dtype = options.num_groups, options.eps, options.dtype
        ctx.split = None if rest is None else x.shape[1]
        x = x if rest is None else torch.cat([x, rest.to(x.dtype)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        own1, own2 = half_copy(weight1, dtype), half_copy(weight2, dtype)
        z1, moments1 = norm_forward(x, gain1, offset1, None, groups, eps, True, dtype)
        y1 = convolve(z1, own1)
        z2, moments2 = norm_forward(y1, gain2, offset2, bias1, groups, eps, True, dtype)
        y2 = convolve(z2, own2)
        if weight3 is None:
            own3, skip, bias = None, x, bias2
        else:
            own3 = half_copy(weight3, dtype)
            skip, bias = convolve(x, own3, padding=(0, 0)), bias2 + bias3
        # Activation checkpointing inside the block: z1 and z2, half of its activations, are not stored.
        ctx.save_for_backward(x, y1, own1, own2, own3, *moments1, *moments2, *tensors)
        ctx.options = options
        return scaled_sum(y2, skip, bias, options.scale, in_place=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, y1, own1, own2, own3, *rest = ctx.saved_tensors
        moments1, moments2, tensors = tuple(rest[:3]), tuple(rest[3:6]), rest[6:]
        gain1, offset1, gain2, offset2, weight1, bias1, weight2, bias2, weight3, bias3 = tensors
        needs, scale = ctx.needs_input_grad, ctx.options.scale
        grad_y = grad_y.to(x.dtype).contiguous(memory_format=torch.channels_last)

        # By their inputs first: of these, convolutions want the shapes alone.
        grad_z2, _ = convolution_gradients(grad_y, y1, own2, needs_weight=False)
        z2 = torch.empty_like(y1) if needs[8] else None
        grad_y1, *grads2, grad_bias1, _ = norm_backward(
            grad_z2, y1, gain2, offset2, bias1, moments2, True, scale=scale, again=z2
        )
        del grad_z2
        grad2 = _weight_gradient(grad_y, z2, own2, weight2, scale) if needs[8] else None
        del z2
        grad_z1, _ = convolution_gradients(grad_y1, x, own1, needs_weight=False)
        skip, grad3 = grad_y, None
        if weight3 is not None:
            skip, grad3 = convolution_gradients(grad_y, x, own3, padding=(0, 0), needs_weight=needs[10])
            grad3 = None if grad3 is None else as_parameter(grad3, weight3, scale)
        z1 = torch.empty_like(x) if needs[6] else None
        grad_x, *grads1, _, grad_rest = norm_backward(
            grad_z1, x, gain1, offset1, None, moments1, True, skip, ctx.split, added_scale=scale, again=z1
        )
        grad1 = _weight_gradient(grad_y1, z1, own1, weight1) if needs[6] else None

        # The last bias and the shortcut's are both added at the end: they have the same gradient.
        sums = scale * channel_sums(grad_y)
        end2, end3 = (None if bias is None else sums.to(bias.dtype) for bias in (bias2, bias3))
        return grad_x, grad_rest, *grads1, *grads2, grad1, grad_bias1, grad2, end2, grad3, end3, None


def _weight_gradient(grad_y: Tensor, x: Tensor, copied: Tensor, weight: Tensor, scale: float = 1.0) -> Tensor:
    _, grad = convolution_gradients(grad_y, x, copied, needs_x=False)
    return as_parameter(grad, weight, scale)
