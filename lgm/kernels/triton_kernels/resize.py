"""Twice the resolution, each pixel four times, over images whose channels lie side by side ([N, P, C] in
memory, P pixels)."""

import triton
import triton.language as tl

from lgm.kernels.triton_kernels.distance import window


@triton.jit
def double_kernel(
    x,  # [N, height * width, C]
    y,  # [N, 2 * height * 2 * width, C]
    height, width, num_channels,
    WINDOWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Nearest-neighbour upsampling by 2: each pixel is read once and written four times."""
    row, column, offsets, channels = window(2 * width, num_channels, width, WINDOWS, CHANNELS)
    inside = (row < height)[:, None] & (channels < num_channels)[None, :]
    image = tl.program_id(1).to(tl.int64) * height * width * num_channels
    values = tl.load(
        x + image + (row * width + column)[:, None] * num_channels + channels[None, :], inside, 0.0
    )
    y += 4 * image
    below = 2 * width * num_channels
    tl.store(y + offsets, values, inside)
    tl.store(y + offsets + num_channels, values, inside)
    tl.store(y + offsets + below, values, inside)
    tl.store(y + offsets + below + num_channels, values, inside)


@triton.jit
def double_backward_kernel(
    grad_y,  # [N, 2 * height * 2 * width, C]
    grad_x,  # [N, height * width, C]
    height, width, num_channels,
    WINDOWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Its gradient: the sum of each 2×2 window, in float32."""
    row, column, offsets, channels = window(2 * width, num_channels, width, WINDOWS, CHANNELS)
    inside = (row < height)[:, None] & (channels < num_channels)[None, :]
    image = tl.program_id(1).to(tl.int64) * height * width * num_channels
    grad_y += 4 * image
    below = 2 * width * num_channels
    total = tl.load(grad_y + offsets, inside, 0.0).to(tl.float32)
    total += tl.load(grad_y + offsets + num_channels, inside, 0.0).to(tl.float32)
    total += tl.load(grad_y + offsets + below, inside, 0.0).to(tl.float32)
    total += tl.load(grad_y + offsets + below + num_channels, inside, 0.0).to(tl.float32)
    offsets = (row * width + column)[:, None] * num_channels + channels[None, :]
    tl.store(grad_x + image + offsets, total.to(grad_x.dtype.element_ty), inside)
