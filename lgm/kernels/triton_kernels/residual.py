"""Sums of feature maps, and sums over their pixels: what stands around convolutions ([P, C] in memory, P
pixels of all images)."""

import triton
import triton.language as tl


@triton.jit
def _tile(block, num_pixels, num_channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Places of a block of pixels, which of them exist, and this program's channels."""
    pixels = block * PIXELS + tl.arange(0, PIXELS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pixels < num_pixels)[:, None] & (channels < num_channels)[None, :]
    return pixels.to(tl.int64)[:, None] * num_channels + channels[None, :], inside, channels


@triton.jit
def scaled_sum_kernel(
    x, added,  # [P, C]
    bias,  # [C]
    y,  # [P, C]
    num_pixels, num_channels, scale,
    ADDED: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """y = (x + added + bias) * scale."""
    offsets, inside, channels = _tile(tl.program_id(0), num_pixels, num_channels, PIXELS, CHANNELS)
    values = tl.load(x + offsets, inside, 0.0).to(tl.float32)
    if ADDED:
        values += tl.load(added + offsets, inside, 0.0).to(tl.float32)
    values += tl.load(bias + channels, channels < num_channels, 0.0).to(tl.float32)[None, :]
    tl.store(y + offsets, (values * scale).to(y.dtype.element_ty), inside)


@triton.jit
def channel_sums_kernel(
    x,  # [P, C]
    sums,  # [rows, C] float32: of x over a row of blocks of pixels
    num_pixels, num_channels,
    STEPS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sums over pixels of each channel, one row per program: no atomics, the rows are added afterwards."""
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for step in range(STEPS):
        block = tl.program_id(0) * STEPS + step
        offsets, inside, _ = _tile(block, num_pixels, num_channels, PIXELS, CHANNELS)
        total += tl.load(x + offsets, inside, 0.0).to(tl.float32)
    row = tl.program_id(0).to(tl.int64) * num_channels + channels
    tl.store(sums + row, tl.sum(total, axis=0), channels < num_channels)
