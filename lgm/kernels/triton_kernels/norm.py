"""GroupNorm and SiLU over pictures whose channels lie side by side ([N, P, C] in memory, P pixels).

A program takes a block of pixels and of channels. Sums go into one row a block of pixels, and a second
kernel adds the rows of a group: no atomics, so the same bits each time, and groups of any width.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(num_pixels, num_channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Places of this program's tile within its picture, which of them exist, and its channels."""
    pixels = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pixels < num_pixels)[:, None] & (channels < num_channels)[None, :]
    picture = tl.program_id(1).to(tl.int64) * num_pixels * num_channels
    return picture + pixels[:, None] * num_channels + channels[None, :], inside, channels


@triton.jit
def _row(channels, num_channels):
    """Places of this program's sums."""
    row = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    return row * num_channels + channels


@triton.jit
def _normalised(x, means, rstds, channels, num_channels, group_width):
    """(x - mean) / deviation of each channel's group."""
    groups = num_channels // group_width
    group = tl.program_id(1) * groups + channels // group_width
    there = channels < num_channels
    mean, rstd = tl.load(means + group, there, 0.0), tl.load(rstds + group, there, 0.0)
    return (x - mean[None, :]) * rstd[None, :]


@triton.jit
def moments_kernel(
    x,  # [N, P, C]
    sums, squares,  # [N, rows, C] float32: of a block of pixels, and of their distances from its mean
    num_pixels, num_channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    place, inside, channels = _tile(num_pixels, num_channels, PIXELS, CHANNELS)
    values = tl.load(x + place, inside, 0.0).to(tl.float32)
    total = tl.sum(values, axis=0)
    count = tl.minimum(PIXELS, num_pixels - tl.program_id(0) * PIXELS)
    distance = tl.where(inside, values - (total / count)[None, :], 0.0)
    row = _row(channels, num_channels)
    tl.store(sums + row, total, channels < num_channels)
    tl.store(squares + row, tl.sum(distance * distance, axis=0), channels < num_channels)


@triton.jit
def _group_sums(sums, num_channels, group_width, rows, begin, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows from `begin` on of the group of picture 0's axis and group 1's, and which of them exist."""
    row, column = begin + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (column < group_width)[None, :]
    place = (tl.program_id(0).to(tl.int64) * rows + row)[:, None] * num_channels
    place += tl.program_id(1) * group_width + column[None, :]
    return tl.load(sums + place, inside, 0.0), inside


@triton.jit
def combine_kernel(
    sums, squares,  # [N, rows, C] float32
    means, rstds,  # [N, G] float32
    num_pixels, num_channels, group_width, rows, eps,
    PIXELS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One program a picture and group. Squares are about each block's own mean: no cancellation."""
    of_one = 1.0 / (num_pixels * group_width * 1.0)
    totals = tl.zeros([ROWS, WIDTH], tl.float32)
    for begin in range(0, rows, ROWS):
        total, _ = _group_sums(sums, num_channels, group_width, rows, begin, ROWS, WIDTH)
        totals += total
    mean = tl.sum(totals) * of_one
    distances = tl.zeros([ROWS, WIDTH], tl.float32)
    for begin in range(0, rows, ROWS):
        total, inside = _group_sums(sums, num_channels, group_width, rows, begin, ROWS, WIDTH)
        within, _ = _group_sums(squares, num_channels, group_width, rows, begin, ROWS, WIDTH)
        count = tl.minimum(PIXELS, num_pixels - (begin + tl.arange(0, ROWS)) * PIXELS)[:, None] * 1.0
        apart = tl.where(inside, total / count - mean, 0.0)
        distances += within + count * apart * apart
    group = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(means + group, mean)
    tl.store(rstds + group, 1 / tl.sqrt(tl.sum(distances) * of_one + eps))


@triton.jit
def apply_kernel(
    x, weight, bias, means, rstds,
    y,  # [N, P, C], in the precision that it is wanted in
    num_pixels, num_channels, group_width,
    SILU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    place, inside, channels = _tile(num_pixels, num_channels, PIXELS, CHANNELS)
    values = tl.load(x + place, inside, 0.0).to(tl.float32)
    there = channels < num_channels
    z = _normalised(values, means, rstds, channels, num_channels, group_width)
    z *= tl.load(weight + channels, there, 0.0).to(tl.float32)[None, :]
    z += tl.load(bias + channels, there, 0.0).to(tl.float32)[None, :]
    if SILU:
        z *= tl.sigmoid(z)
    tl.store(y + place, z.to(y.dtype.element_ty), inside)


@triton.jit
def _gradients(
    x, grad_y, weight, bias, means, rstds, place, inside, channels, num_channels, group_width,
    SILU: tl.constexpr,
):  # fmt: skip
    """Normalised values, and the gradient before SiLU, which is computed again."""
    values = tl.load(x + place, inside, 0.0).to(tl.float32)
    grad = tl.load(grad_y + place, inside, 0.0).to(tl.float32)
    normalised = _normalised(values, means, rstds, channels, num_channels, group_width)
    if SILU:
        there = channels < num_channels
        z = normalised * tl.load(weight + channels, there, 0.0).to(tl.float32)[None, :]
        z += tl.load(bias + channels, there, 0.0).to(tl.float32)[None, :]
        s = tl.sigmoid(z)
        grad *= s * (1 + z * (1 - s))
    return normalised, grad


@triton.jit
def backward_sums_kernel(
    x, grad_y, weight, bias, means, rstds,
    grad_biases, grad_weights,  # [N, rows, C] float32: sums over a block of pixels
    num_pixels, num_channels, group_width,
    SILU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    place, inside, channels = _tile(num_pixels, num_channels, PIXELS, CHANNELS)
    normalised, grad = _gradients(
        x, grad_y, weight, bias, means, rstds, place, inside, channels, num_channels, group_width, SILU
    )
    row = _row(channels, num_channels)
    tl.store(grad_biases + row, tl.sum(grad, axis=0), channels < num_channels)
    tl.store(grad_weights + row, tl.sum(grad * normalised, axis=0), channels < num_channels)


@triton.jit
def backward_combine_kernel(
    grad_biases, grad_weights, weight,
    mean_grads, mean_products,  # [N, G] float32: of the gradient, and of it times the normalised values
    num_pixels, num_channels, group_width, rows,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    of_one = 1.0 / (num_pixels * group_width * 1.0)
    grads, products = tl.zeros([ROWS, WIDTH], tl.float32), tl.zeros([ROWS, WIDTH], tl.float32)
    for begin in range(0, rows, ROWS):
        grad, _ = _group_sums(grad_biases, num_channels, group_width, rows, begin, ROWS, WIDTH)
        product, _ = _group_sums(grad_weights, num_channels, group_width, rows, begin, ROWS, WIDTH)
        grads, products = grads + grad, products + product
    column = tl.arange(0, WIDTH)
    there = column < group_width
    scale = tl.load(weight + tl.program_id(1) * group_width + column, there, 0.0).to(tl.float32) * of_one
    group = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(mean_grads + group, tl.sum(grads * scale[None, :]))
    tl.store(mean_products + group, tl.sum(products * scale[None, :]))


@triton.jit
def backward_apply_kernel(
    x, grad_y, weight, bias, means, rstds, mean_grads, mean_products,
    grad_x,  # [N, P, C]
    num_pixels, num_channels, group_width,
    SILU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    place, inside, channels = _tile(num_pixels, num_channels, PIXELS, CHANNELS)
    normalised, grad = _gradients(
        x, grad_y, weight, bias, means, rstds, place, inside, channels, num_channels, group_width, SILU
    )
    there = channels < num_channels
    group = tl.program_id(1) * (num_channels // group_width) + channels // group_width
    grad *= tl.load(weight + channels, there, 0.0).to(tl.float32)[None, :]
    grad -= tl.load(mean_grads + group, there, 0.0)[None, :]
    grad -= normalised * tl.load(mean_products + group, there, 0.0)[None, :]
    grad *= tl.load(rstds + group, there, 0.0)[None, :]
    tl.store(grad_x + place, grad.to(grad_x.dtype.element_ty), inside)
