"""3×3 kernels between two layouts: contiguous, [D, C, 9] in memory, and channels-last, [D, 9, C]."""

import triton
import triton.language as tl

TAPS = tl.constexpr(9)


@triton.jit
def _places(num_channels, BLOCK: tl.constexpr):
    """Of one output channel's block of input channels and taps, in either layout, and which of them exist."""
    channels = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    taps = tl.arange(0, 16)  # a power of two
    inside = (channels < num_channels)[:, None] & (taps < TAPS)[None, :]
    begin = tl.program_id(0).to(tl.int64) * num_channels * TAPS
    contiguous = begin + channels[:, None] * TAPS + taps[None, :]
    channels_last = begin + taps[None, :] * num_channels + channels[:, None]
    return contiguous, channels_last, inside


@triton.jit
def to_channels_last_kernel(weight, copied, num_channels, BLOCK: tl.constexpr):
    """A 3×3 weight from [D, C, 9] in memory to [D, 9, C], in another precision, tile by tile."""
    contiguous, channels_last, inside = _places(num_channels, BLOCK)
    values = tl.load(weight + contiguous, inside, 0.0)
    tl.store(copied + channels_last, values.to(copied.dtype.element_ty), inside)


@triton.jit
def from_channels_last_kernel(grad, result, num_channels, scale, BLOCK: tl.constexpr):
    """A weight's gradient from [D, 9, C] back to [D, C, 9], times `scale`, in the parameter's precision."""
    contiguous, channels_last, inside = _places(num_channels, BLOCK)
    values = tl.load(grad + channels_last, inside, 0.0).to(tl.float32) * scale
    tl.store(result + contiguous, values.to(result.dtype.element_ty), inside)
