"""The four phases of a doubled map, side by side ([N, h+1, w+1, 4*D] in memory), and that map itself
([N, 2h, 2w, D]).

Phase 2*a + b holds at (p, q) the pixel (2 * (p - a) + a, 2 * (q - b) + b), where there is one.
"""

import triton
import triton.language as tl


@triton.jit
def _block(num_pixels, num_channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    pixels = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    return pixels, channels, (pixels < num_pixels)[:, None] & (channels < num_channels)[None, :]


@triton.jit
def interleave_kernel(
    phases,  # [N, h+1, w+1, 4*D]
    bias,  # [D]
    y,  # [N, 2h, 2w, D]
    height, width, num_channels,  # of y
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The doubled map from its four phases, plus bias: what a convolution of the doubled map would give."""
    pixels, channels, inside = _block(height * width, num_channels, PIXELS, CHANNELS)
    row, column = pixels // width, pixels % width
    a, b = row % 2, column % 2
    rows, columns = height // 2 + 1, width // 2 + 1
    # Row r of the doubled map is row r // 2 + r % 2 of its phase; columns likewise.
    pixel = (row // 2 + a) * columns + column // 2 + b
    image = tl.program_id(1).to(tl.int64)
    source = (image * rows * columns + pixel) * 4 + 2 * a + b
    values = tl.load(phases + source[:, None] * num_channels + channels[None, :], inside, 0.0)
    values = values.to(tl.float32)
    values += tl.load(bias + channels, channels < num_channels, 0.0).to(tl.float32)[None, :]
    target = (image * height * width + pixels) * num_channels
    tl.store(y + target[:, None] + channels[None, :], values.to(y.dtype.element_ty), inside)


@triton.jit
def separate_kernel(
    grad_y,  # [N, 2h, 2w, D]
    grad,  # [N, h+1, w+1, 4*D]
    height, width, num_channels,  # of grad_y
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The reverse of interleaving: each phase's gradient, 0 where it has no pixel of the doubled map."""
    rows, columns = height // 2 + 1, width // 2 + 1
    pixels, channels, inside = _block(rows * columns, 4 * num_channels, PIXELS, CHANNELS)
    phase = channels // num_channels
    a, b = phase // 2, phase % 2
    row = 2 * (pixels // columns)[:, None] - a[None, :]
    column = 2 * (pixels % columns)[:, None] - b[None, :]
    exists = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    image = tl.program_id(1).to(tl.int64)
    source = (image * height * width + row * width + column) * num_channels
    values = tl.load(grad_y + source + (channels % num_channels)[None, :], exists, 0.0)
    target = (image * rows * columns + pixels) * 4 * num_channels
    tl.store(grad + target[:, None] + channels[None, :], values, inside)
