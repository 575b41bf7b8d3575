"""Distances of two feature maps and their gradient, and 2×2 max pooling, over images whose channels lie side
by side ([M, P, C] in memory, P pixels).

Sums go into one number per block of pixels, which PyTorch adds: no atomics, so the same bits each time.
"""

import triton
import triton.language as tl


@triton.jit
def distance_kernel(
    x, y,  # [M, P, C], outputs of a ReLU
    weight,  # [C] float32
    sums,  # [M, blocks] float32: of a block of pixels
    grad_x,  # [M, P, C]: the gradient of `gradient_scale` times the sum, where x > 0
    num_pixels, num_channels, gradient_scale, eps,
    GRADIENT: tl.constexpr, STEPS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """With u = x / (|x| + eps) for each pixel and v the same of y: weight · (u - v)², summed over pixels.

    The gradient by u is g = 2 weight (u - v), and by x it is g / (|x| + eps) - x (g·x) / (|x| (|x| + eps)²).
    """
    image = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, CHANNELS)
    in_range = channels < num_channels
    w = tl.load(weight + channels, in_range, 0.0)[None, :]
    total = tl.zeros([PIXELS], tl.float32)
    for step in range(STEPS):
        pixels = (tl.program_id(0) * STEPS + step) * PIXELS + tl.arange(0, PIXELS)
        inside = (pixels < num_pixels)[:, None] & in_range[None, :]
        offsets = (image * num_pixels + pixels)[:, None] * num_channels + channels[None, :]
        a = tl.load(x + offsets, inside, 0.0).to(tl.float32)
        b = tl.load(y + offsets, inside, 0.0).to(tl.float32)
        # Over channels: a program holds all channels of its pixels, so that the norm stays in registers.
        norm = tl.sqrt(tl.sum(a * a, axis=1))
        of_norm = 1.0 / (norm + eps)
        other = 1.0 / (tl.sqrt(tl.sum(b * b, axis=1)) + eps)
        difference = a * of_norm[:, None] - b * other[:, None]
        # A product and a difference are one rounding on a GPU: of equal maps it would leave something.
        difference = tl.where((a == b) & (of_norm == other)[:, None], 0.0, difference)
        weighted = w * difference
        total += tl.sum(weighted * difference, axis=1)
        if GRADIENT:
            # A pixel whose features are all zero has no direction: its gradient is 0, not NaN.
            along = tl.sum(weighted * a, axis=1) * of_norm / tl.where(norm > 0, norm, 1.0)
            grad = (2 * gradient_scale * of_norm)[:, None] * (weighted - a * along[:, None])
            grad = tl.where(a > 0, grad, 0.0)
            tl.store(grad_x + offsets, grad.to(grad_x.dtype.element_ty), inside)
    tl.store(sums + image * tl.num_programs(0) + tl.program_id(0), tl.sum(total, axis=0))


@triton.jit
def window(width, num_channels, across, WINDOWS: tl.constexpr, CHANNELS: tl.constexpr):
    """This program's windows of 2×2 pixels, `across` in a row: their row and column, the place of their first
    number within the image, and their channels."""
    window = tl.program_id(0) * WINDOWS + tl.arange(0, WINDOWS)
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    row, column = window // across, window % across
    offsets = (2 * row * width + 2 * column)[:, None] * num_channels + channels[None, :]
    return row, column, offsets, channels


@triton.jit
def pool_kernel(
    x,  # [M, height * width, C]
    y,  # [M, (height // 2) * (width // 2), C]
    height, width, num_channels,
    WINDOWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """2×2 max pooling, stride 2."""
    across, down = width // 2, height // 2
    row, column, offsets, channels = window(width, num_channels, across, WINDOWS, CHANNELS)
    # Floor: a last row or column without a partner is in no window.
    inside = (row < down)[:, None] & (channels < num_channels)[None, :]
    image = tl.program_id(1).to(tl.int64)
    x += image * height * width * num_channels
    below = width * num_channels
    upper = tl.maximum(tl.load(x + offsets, inside, 0.0), tl.load(x + offsets + num_channels, inside, 0.0))
    lower = tl.maximum(
        tl.load(x + offsets + below, inside, 0.0), tl.load(x + offsets + below + num_channels, inside, 0.0)
    )
    y += image * down * across * num_channels
    offsets = (row * across + column)[:, None] * num_channels + channels[None, :]
    tl.store(y + offsets, tl.maximum(upper, lower), inside)


@triton.jit
def _add_where(grad, offsets, pooled, taken, inside):
    """Add the pooled gradient to one of a window's four pixels where it was the largest."""
    value = tl.load(grad + offsets, inside, 0.0).to(tl.float32) + tl.where(taken, pooled, 0.0)
    tl.store(grad + offsets, value.to(grad.dtype.element_ty), inside)


@triton.jit
def pool_backward_kernel(
    x,  # [M, height * width, C]: what was pooled, the output of a ReLU
    grad_y,  # [M, (height // 2) * (width // 2), C]
    grad,  # [M, height * width, C]: is added to
    height, width, num_channels,
    WINDOWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The first of the largest of four takes the gradient, as PyTorch's does; and none where that is 0, where
    the ReLU lets nothing through."""
    across, down = width // 2, height // 2
    row, column, offsets, channels = window(width, num_channels, across, WINDOWS, CHANNELS)
    inside = (row < down)[:, None] & (channels < num_channels)[None, :]
    image = tl.program_id(1).to(tl.int64)
    grad_y += image * down * across * num_channels
    pooled = tl.load(
        grad_y + (row * across + column)[:, None] * num_channels + channels[None, :], inside, 0.0
    ).to(tl.float32)
    x += image * height * width * num_channels
    grad += image * height * width * num_channels
    below = width * num_channels
    a = tl.load(x + offsets, inside, 0.0)
    b = tl.load(x + offsets + num_channels, inside, 0.0)
    c = tl.load(x + offsets + below, inside, 0.0)
    d = tl.load(x + offsets + below + num_channels, inside, 0.0)
    largest = tl.maximum(tl.maximum(a, b), tl.maximum(c, d))
    left = largest > 0
    taken = left & (a == largest)
    _add_where(grad, offsets, pooled, taken, inside)
    left = left & (a != largest)
    taken = left & (b == largest)
    _add_where(grad, offsets + num_channels, pooled, taken, inside)
    left = left & (b != largest)
    taken = left & (c == largest)
    _add_where(grad, offsets + below, pooled, taken, inside)
    _add_where(grad, offsets + below + num_channels, pooled, left & (c != largest), inside)
