"""GroupNorm, and the SiLU after it, as one operation on a GPU.

Under autocast PyTorch's GroupNorm takes and gives float32: some ten passes over memory between two
convolutions, and since it knows no channels-last, which convolutions want, pictures are rearranged around it.
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
_MOST_CHANNELS = 128  # of them side by side
_SUMS = 1024  # and when sums are added


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm, with SiLU after it on request.

    fuse: let our own kernels compute it where they run. Else, and where torch.compile is at work, which
        fuses by itself, PyTorch does.
    """

    fuse = False

    def __init__(self, num_groups: int, num_channels: int, eps: float, silu: bool = False) -> None:
        super().__init__(num_groups, num_channels, eps=eps)
        self.silu = silu

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        if self.is_fused(x):
            return fused_group_norm(x, self.weight, self.bias, self.num_groups, self.eps, self.silu)
        y = super().forward(x)
        return F.silu(y) if self.silu else y

    def is_fused(self, x: Tensor) -> bool:
        """Whether our own kernels compute it, which take and give channels-last, in float32 within."""
        return self.fuse and kernels_run(x)


def fused_group_norm(
    x: Float[Tensor, "N C h w"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    num_groups: int,
    eps: float,
    silu: bool,
) -> Float[Tensor, "N C h w"]:
    """By our own kernels; in float32 within, the result channels-last and in autocast's precision."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return _GroupNorm.apply(x, weight, bias, num_groups, eps, silu, dtype)


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
        from lgm.kernels.triton_kernels.norm import apply_kernel, combine_kernel, moments_kernel

        x = x.contiguous(memory_format=torch.channels_last)
        grid, tile, rows = _tiles(x, num_groups)
        pixels, channels = x.shape[2] * x.shape[3], x.shape[1]
        width = channels // num_groups
        sums = x.new_empty(2, len(x), rows["rows"], channels, dtype=torch.float32)
        means, rstds = x.new_empty(2, len(x), num_groups, dtype=torch.float32)
        y = torch.empty_like(x, dtype=dtype)
        with torch.cuda.device_of(x):
            moments_kernel[grid](x, *sums, pixels, channels, **tile)
            combine_kernel[(len(x), num_groups)](
                *sums, means, rstds, pixels, channels, width, eps=eps,
                PIXELS=tile["PIXELS"], **rows,
            )  # fmt: skip
            apply_kernel[grid](x, weight, bias, means, rstds, y, pixels, channels, width, SILU=silu, **tile)
        ctx.save_for_backward(x, weight, bias, means, rstds)
        ctx.silu = silu
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        from lgm.kernels.triton_kernels.norm import (
            backward_apply_kernel,
            backward_combine_kernel,
            backward_sums_kernel,
        )

        x, weight, bias, means, rstds = ctx.saved_tensors
        grad_y = grad_y.contiguous(memory_format=torch.channels_last)
        pixels, channels, num_groups = x.shape[2] * x.shape[3], x.shape[1], means.shape[1]
        grid, tile, rows = _tiles(x, num_groups)
        width = channels // num_groups
        sums = x.new_empty(2, len(x), rows["rows"], channels, dtype=torch.float32)
        mean_grads = torch.empty_like(means), torch.empty_like(means)
        grad_x = torch.empty_like(x)
        own = (x, grad_y, weight, bias, means, rstds)
        with torch.cuda.device_of(x):
            backward_sums_kernel[grid](*own, *sums, pixels, channels, width, SILU=ctx.silu, **tile)
            backward_combine_kernel[(len(x), num_groups)](
                *sums, weight, *mean_grads, pixels, channels, width, **rows
            )
            backward_apply_kernel[grid](
                *own, *mean_grads, grad_x, pixels, channels, width, SILU=ctx.silu, **tile
            )
        grad_bias, grad_weight = sums.sum((1, 2))
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), None, None, None, None


def _tiles(x: Tensor, num_groups: int) -> tuple[tuple[int, int, int], dict[str, int], dict[str, int]]:
    """Programs (blocks of pixels, pictures, blocks of channels), the size of a block, how many rows of sums
    a picture has, and how many of a group are added at once."""
    pixels = x.shape[2] * x.shape[3]
    channels = min(_power(x.shape[1]), _MOST_CHANNELS)
    block = min(_TILE // channels, _power(pixels))
    rows = -(-pixels // block)
    grid = (rows, len(x), -(-x.shape[1] // channels))
    width = _power(x.shape[1] // num_groups)
    at_once = {"rows": rows, "ROWS": min(_power(rows), max(1, _SUMS // width)), "WIDTH": width}
    return grid, {"PIXELS": block, "CHANNELS": channels}, at_once


def _power(number: int) -> int:
    """The next power of two, which a kernel's blocks are."""
    return 1 << (number - 1).bit_length()
