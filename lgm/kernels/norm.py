"""GroupNorm, and the SiLU after it, as one operation on a GPU.

Under autocast PyTorch's GroupNorm takes and gives float32: some ten passes over memory between two
convolutions, and since it knows no channels-last, which convolutions want, images are rearranged around it.
Fused, the input is read twice and the result written once, in the precision that the next convolution takes;
the numbers are the same but for the order of sums. Of a call the backward pass keeps the input alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lgm.kernels.choice import kernels_run

_TILE = 4096  # numbers that a program holds
_MOST_CHANNELS = 128  # channels of such a tile
_SUMS = 1024  # numbers that a program holds when partial sums are added
_PROGRAMS = 2048  # programs of a sum, where there is enough work: they fill any GPU
_MOST_STEPS = 16  # blocks that such a program goes through


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm, with SiLU after it on request.

    fuse: let our own kernels compute it where they run. Else, and where torch.compile is at work, which
        fuses by itself, PyTorch does.
    """

    fuse = False

    def __init__(self, num_groups: int, num_channels: int, eps: float, silu: bool = False) -> None:
        super().__init__(num_groups, num_channels, eps=eps)
        self.silu = silu

    def forward(
        self, x: Float[Tensor, "N C h w"], dtype: torch.dtype | None = None
    ) -> Float[Tensor, "N C h w"]:
        """GroupNorm and, if `silu`, SiLU after it.

        dtype: of the result, and of the computation where PyTorch computes it; None is autocast's own choice.
        """
        if self.is_fused(x):
            dtype = dtype or autocast_dtype(x)
            return fused_group_norm(x, self.weight, self.bias, self.num_groups, self.eps, self.silu, dtype)
        y = super().forward(x if dtype is None else x.to(dtype))
        return F.silu(y) if self.silu else y

    def is_fused(self, x: Tensor) -> bool:
        """Whether our own kernels compute it, which take and give channels-last, in float32 within."""
        return self.fuse and kernels_run(x)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The precision in which a convolution of `x` computes here."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def fused_group_norm(
    x: Float[Tensor, "N C h w"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    num_groups: int,
    eps: float,
    silu: bool,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "N C h w"]:
    """GroupNorm (and SiLU) by our own kernels: float32 inside, the result channels-last.

    dtype: of the result; None is autocast's.
    """
    return _GroupNorm.apply(x, weight, bias, num_groups, eps, silu, dtype or autocast_dtype(x))


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        num_groups: int,
        eps: float,
        silu: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        y, moments = norm_forward(x, weight, bias, None, num_groups, eps, silu, dtype)
        # Not the normalised values: they are computed again from x and the moments.
        ctx.save_for_backward(x, weight, bias, *moments)
        ctx.silu = silu
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, *moments = ctx.saved_tensors
        grad_y = grad_y.contiguous(memory_format=torch.channels_last)
        grads = norm_backward(grad_y, x, weight, bias, None, tuple(moments), ctx.silu)
        return *grads[:3], None, None, None, None


# What a forward pass keeps for the backward pass: sums [N, rows, C], means and reciprocal deviations [N, G].
Moments = tuple[Tensor, Tensor, Tensor]


def norm_forward(
    x: Float[Tensor, "N C h w"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    shift: Float[Tensor, " C"] | None,
    num_groups: int,
    eps: float,
    silu: bool,
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "N C h w"], Moments]:
    """The norm of x + shift, without a graph. x: channels-last. shift: of each channel, such as the bias of
    the convolution before."""
    from lgm.kernels.triton_kernels.norm import apply_kernel, combine_kernel, moments_kernel

    tiles = _Tiles(x, num_groups)
    sums, squares = x.new_empty(2, len(x), tiles.rows, x.shape[1], dtype=torch.float32)
    means, rstds = x.new_empty(2, len(x), num_groups, dtype=torch.float32)
    y = torch.empty_like(x, dtype=dtype)
    shifted = {"SHIFTED": shift is not None}
    shift = weight if shift is None else shift
    with torch.cuda.device_of(x):
        moments_kernel[tiles.summing](x, sums, squares, *tiles.size, **tiles.steps, **tiles.block)
        combine_kernel[(len(x), num_groups)](
            sums, squares, shift, means, rstds, *tiles.size, tiles.width, tiles.rows, eps=eps,
            ROW_PIXELS=tiles.row_pixels, **tiles.at_once, **shifted,
        )  # fmt: skip
        apply_kernel[tiles.writing](
            x, weight, bias, shift, means, rstds, y, *tiles.size, tiles.width,
            SILU=silu, **shifted, **tiles.block,
        )  # fmt: skip
    return y, (sums, means, rstds)


def norm_backward(
    grad_y: Float[Tensor, "N C h w"],
    x: Float[Tensor, "N C h w"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    shift: Float[Tensor, " C"] | None,
    moments: Moments,
    silu: bool,
    added: Float[Tensor, "N C h w"] | None = None,
    split: int | None = None,
    scale: float = 1.0,
    added_scale: float = 1.0,
    again: Float[Tensor, "N C h w"] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients by x, weight, bias and shift of grad_y * scale; that by x with added * added_scale on top.
    All are channels-last.

    split: the first of these is by as many of x's channels, and the last result is by the others. again: what
    the forward pass gave is written there once more, so that nobody need keep it.
    """
    from lgm.kernels.triton_kernels.norm import (
        backward_apply_kernel,
        backward_combine_kernel,
        backward_sums_kernel,
    )

    values, means, rstds = moments
    tiles = _Tiles(x, means.shape[1])
    sums = torch.empty_like(values), torch.empty_like(values)
    mean_grads = torch.empty_like(means), torch.empty_like(means)
    parameters = x.new_empty(2 if shift is None else 3, len(x), x.shape[1], dtype=torch.float32)
    grad_x, grad_rest = torch.empty_like(x), None
    if split is not None:
        grad_x, grad_rest = (
            torch.empty_like(part, memory_format=torch.channels_last) for part in (x[:, :split], x[:, split:])
        )
    shifted = {"SHIFTED": shift is not None}
    operands = (x, grad_y, weight, bias, weight if shift is None else shift, means, rstds)
    with torch.cuda.device_of(x):
        backward_sums_kernel[tiles.summing](
            *operands, *sums, x if again is None else again, *tiles.size, tiles.width, scale,
            SILU=silu, WRITTEN=again is not None, **shifted, **tiles.steps, **tiles.block,
        )  # fmt: skip
        backward_combine_kernel[(len(x), means.shape[1])](
            *sums, values, *operands[2:3], *operands[4:], *mean_grads, parameters, *tiles.size, tiles.width,
            tiles.rows, **tiles.at_once, **shifted,
        )  # fmt: skip
        backward_apply_kernel[tiles.writing](
            *operands, *mean_grads, x if added is None else added, grad_x,
            grad_x if split is None else grad_rest, *tiles.size, tiles.width, split or 0, scale, added_scale,
            SILU=silu, ADDED=added is not None, SPLIT=split is not None, **shifted, **tiles.block,
        )  # fmt: skip
    kinds = [grad.to(weight.dtype) for grad in parameters.sum(1)]
    return grad_x, kinds[0], kinds[1], None if shift is None else kinds[2], grad_rest


class _Tiles:
    """How kernels divide a batch of images [N, C, h, w] among programs.

    writing, summing: grids of programs (blocks of pixels, or rows of them; images; blocks of channels).
    block: the size of a block; steps: how many of them a row has. row_pixels, rows: pixels a row, and rows an
    image. width: channels a group; at_once: how many rows of a group are added at once.
    """

    def __init__(self, x: Tensor, num_groups: int) -> None:
        count, num_channels = x.shape[:2]
        pixels = x.shape[2] * x.shape[3]
        channels = min(_power(num_channels), _MOST_CHANNELS)
        block = min(_TILE // channels, _power(pixels))
        blocks, across = -(-pixels // block), -(-num_channels // channels)
        steps = min(_MOST_STEPS, _power(max(1, blocks * count * across // _PROGRAMS)), _power(blocks))
        self.size = pixels, num_channels
        self.block = {"PIXELS": block, "CHANNELS": channels}
        self.steps = {"STEPS": steps}
        self.row_pixels = steps * block
        self.rows = -(-pixels // self.row_pixels)
        self.writing = (blocks, count, across)
        self.summing = (self.rows, count, across)
        self.width = num_channels // num_groups
        width = _power(self.width)
        self.at_once = {"ROWS": min(_power(self.rows), max(1, _SUMS // width)), "WIDTH": width}


def _power(number: int) -> int:
    """The next power of two, which a kernel's blocks are."""
    return 1 << (number - 1).bit_length()
