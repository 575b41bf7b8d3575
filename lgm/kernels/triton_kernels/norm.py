"""GroupNorm and SiLU over images whose channels lie side by side ([N, P, C] in memory, P pixels).

A program takes a block of pixels and of channels. Kernels that sum go through several blocks each, whose sums
go into one row, and a second kernel adds the rows of a group: no atomics, so the same bits each time, and
groups of any width. `shift` is a number for each channel that is added to x before all else: the bias of the
convolution that x comes from.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(block, num_pixels, num_channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Places of a block of pixels within its image, which of them exist, and this program's channels."""
    pixels = block * PIXELS + tl.arange(0, PIXELS)
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pixels < num_pixels)[:, None] & (channels < num_channels)[None, :]
    image = tl.program_id(1).to(tl.int64) * num_pixels * num_channels
    return image + pixels[:, None] * num_channels + channels[None, :], inside, channels


@triton.jit
def _row(channels, num_channels):
    """Places of this program's sums."""
    row = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    return row * num_channels + channels


@triton.jit
def _normalised(
    x, shift, means, rstds, channels, num_channels, group_width, SHIFTED: tl.constexpr
):  # fmt: skip
    """(x + shift - mean) / deviation of each channel's group."""
    groups = num_channels // group_width
    group = tl.program_id(1) * groups + channels // group_width
    in_range = channels < num_channels
    mean, rstd = tl.load(means + group, in_range, 0.0), tl.load(rstds + group, in_range, 0.0)
    if SHIFTED:
        mean -= tl.load(shift + channels, in_range, 0.0).to(tl.float32)
    return (x - mean[None, :]) * rstd[None, :]


@triton.jit
def moments_kernel(
    x,  # [N, P, C]
    sums, squares,  # [N, rows, C] float32: of a row of blocks of pixels, and of distances from its mean
    num_pixels, num_channels,
    STEPS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sums, and sums of squared distances from the mean, of each row of blocks and channel."""
    begin = tl.program_id(0) * STEPS
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    # Squares are about the row's first pixel, a number of its channel's own size: next to nothing cancels.
    first = (tl.program_id(1).to(tl.int64) * num_pixels + begin * PIXELS) * num_channels + channels
    about = tl.load(x + first, channels < num_channels, 0.0).to(tl.float32)[None, :]
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    square = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for step in range(STEPS):
        offsets, inside, _ = _tile(begin + step, num_pixels, num_channels, PIXELS, CHANNELS)
        distance = tl.where(inside, tl.load(x + offsets, inside, 0.0).to(tl.float32) - about, 0.0)
        total += distance
        square += distance * distance
    count = tl.minimum(STEPS * PIXELS, num_pixels - begin * PIXELS) * 1.0
    mean = tl.sum(total, axis=0) / count
    row = _row(channels, num_channels)
    tl.store(sums + row, (mean + tl.sum(about, axis=0)) * count, channels < num_channels)
    apart = tl.maximum(tl.sum(square, axis=0) - mean * mean * count, 0.0)
    tl.store(squares + row, apart, channels < num_channels)


@triton.jit
def _group_sums(sums, num_channels, group_width, rows, begin, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows from `begin` on of the group of image 0's axis and group 1's, and which of them exist."""
    row, column = begin + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (column < group_width)[None, :]
    offsets = (tl.program_id(0).to(tl.int64) * rows + row)[:, None] * num_channels
    offsets += tl.program_id(1) * group_width + column[None, :]
    return tl.load(sums + offsets, inside, 0.0), inside


@triton.jit
def combine_kernel(
    sums, squares,  # [N, rows, C] float32
    shift,  # [C]
    means, rstds,  # [N, G] float32
    num_pixels, num_channels, group_width, rows, eps,
    SHIFTED: tl.constexpr, ROW_PIXELS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One program an image and group. Squares are about each row's own mean: no cancellation."""
    of_one = 1.0 / (num_pixels * group_width * 1.0)
    column = tl.arange(0, WIDTH)
    added = tl.zeros([WIDTH], tl.float32)
    if SHIFTED:
        group_channels = tl.program_id(1) * group_width + column
        added = tl.load(shift + group_channels, column < group_width, 0.0).to(tl.float32)
    totals = tl.zeros([ROWS, WIDTH], tl.float32)
    for begin in range(0, rows, ROWS):
        total, _ = _group_sums(sums, num_channels, group_width, rows, begin, ROWS, WIDTH)
        totals += total
    mean = (tl.sum(totals) + num_pixels * tl.sum(added)) * of_one
    distances = tl.zeros([ROWS, WIDTH], tl.float32)
    for begin in range(0, rows, ROWS):
        total, inside = _group_sums(sums, num_channels, group_width, rows, begin, ROWS, WIDTH)
        within, _ = _group_sums(squares, num_channels, group_width, rows, begin, ROWS, WIDTH)
        count = tl.minimum(ROW_PIXELS, num_pixels - (begin + tl.arange(0, ROWS)) * ROW_PIXELS)[:, None] * 1.0
        apart = tl.where(inside, total / count + added[None, :] - mean, 0.0)
        distances += within + count * apart * apart
    group = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(means + group, mean)
    tl.store(rstds + group, 1 / tl.sqrt(tl.sum(distances) * of_one + eps))


@triton.jit
def apply_kernel(
    x, weight, bias, shift, means, rstds,
    y,  # [N, P, C], in the precision that it is wanted in
    num_pixels, num_channels, group_width,
    SILU: tl.constexpr, SHIFTED: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Normalise, scale and shift, and SiLU where wanted: the second of two reads of x."""
    offsets, inside, channels = _tile(tl.program_id(0), num_pixels, num_channels, PIXELS, CHANNELS)
    values = tl.load(x + offsets, inside, 0.0).to(tl.float32)
    in_range = channels < num_channels
    z = _normalised(values, shift, means, rstds, channels, num_channels, group_width, SHIFTED)
    z *= tl.load(weight + channels, in_range, 0.0).to(tl.float32)[None, :]
    z += tl.load(bias + channels, in_range, 0.0).to(tl.float32)[None, :]
    if SILU:
        z *= tl.sigmoid(z)
    tl.store(y + offsets, z.to(y.dtype.element_ty), inside)


@triton.jit
def _gradients(
    x, grad_y, weight, bias, shift, means, rstds, offsets, inside, channels, num_channels, group_width, scale,
    SILU: tl.constexpr, SHIFTED: tl.constexpr,
):  # fmt: skip
    """Normalised values, and the gradient before SiLU, which is computed again. scale: of grad_y."""
    values = tl.load(x + offsets, inside, 0.0).to(tl.float32)
    grad = tl.load(grad_y + offsets, inside, 0.0).to(tl.float32) * scale
    normalised = _normalised(values, shift, means, rstds, channels, num_channels, group_width, SHIFTED)
    if SILU:
        in_range = channels < num_channels
        z = normalised * tl.load(weight + channels, in_range, 0.0).to(tl.float32)[None, :]
        z += tl.load(bias + channels, in_range, 0.0).to(tl.float32)[None, :]
        s = tl.sigmoid(z)
        # The derivative of z · sigmoid(z).
        grad *= s * (1 + z * (1 - s))
    return normalised, grad


@triton.jit
def backward_sums_kernel(
    x, grad_y, weight, bias, shift, means, rstds,
    grads, products,  # [N, rows, C] float32: of gradients, and of them times the normalised values
    y,  # [N, P, C]: where the forward pass's result is written once more, WRITTEN
    num_pixels, num_channels, group_width, scale,
    SILU: tl.constexpr, SHIFTED: tl.constexpr, WRITTEN: tl.constexpr,
    STEPS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Per row and channel: sums of the gradient before the affine map, and of its products with the
    normalised x.

    WRITTEN: write the forward pass's result once more, so that nothing but x had to be stored for it.
    """
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    product = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for step in range(STEPS):
        block = tl.program_id(0) * STEPS + step
        offsets, inside, _ = _tile(block, num_pixels, num_channels, PIXELS, CHANNELS)
        normalised, grad = _gradients(
            x, grad_y, weight, bias, shift, means, rstds, offsets, inside, channels, num_channels,
            group_width, scale, SILU, SHIFTED,
        )  # fmt: skip
        if WRITTEN:
            in_range = channels < num_channels
            z = normalised * tl.load(weight + channels, in_range, 0.0).to(tl.float32)[None, :]
            z += tl.load(bias + channels, in_range, 0.0).to(tl.float32)[None, :]
            if SILU:
                z *= tl.sigmoid(z)
            tl.store(y + offsets, z.to(y.dtype.element_ty), inside)
        total += grad
        product += grad * normalised
    row = _row(channels, num_channels)
    tl.store(grads + row, tl.sum(total, axis=0), channels < num_channels)
    tl.store(products + row, tl.sum(product, axis=0), channels < num_channels)


@triton.jit
def backward_combine_kernel(
    grads, products,  # [N, rows, C] float32
    sums,  # [N, rows, C] float32: of x, as the forward pass had them
    weight, shift, means, rstds,
    mean_grads, mean_products,  # [N, G] float32: of the gradient, and of it times the normalised values
    parameter_grads,  # [3, N, C] float32: of weight, bias and shift, of each image
    num_pixels, num_channels, group_width, rows,
    SHIFTED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add up rows to each group's two means, which x's gradient needs, and to the parameters' gradients."""
    of_one = 1.0 / (num_pixels * group_width * 1.0)
    grad_rows, product_rows = tl.zeros([ROWS, WIDTH], tl.float32), tl.zeros([ROWS, WIDTH], tl.float32)
    value_rows = tl.zeros([ROWS, WIDTH], tl.float32)
    for begin in range(0, rows, ROWS):
        grad, _ = _group_sums(grads, num_channels, group_width, rows, begin, ROWS, WIDTH)
        product, _ = _group_sums(products, num_channels, group_width, rows, begin, ROWS, WIDTH)
        grad_rows, product_rows = grad_rows + grad, product_rows + product
        if SHIFTED:
            value, _ = _group_sums(sums, num_channels, group_width, rows, begin, ROWS, WIDTH)
            value_rows += value
    grad, product = tl.sum(grad_rows, axis=0), tl.sum(product_rows, axis=0)
    column = tl.arange(0, WIDTH)
    in_range = column < group_width
    channels = tl.program_id(1) * group_width + column
    scale = tl.load(weight + channels, in_range, 0.0).to(tl.float32)
    mean_grad = tl.sum(grad * scale) * of_one
    mean_product = tl.sum(product * scale) * of_one
    group = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(mean_grads + group, mean_grad)
    tl.store(mean_products + group, mean_product)
    partial_sums = parameter_grads + tl.program_id(0) * num_channels + channels
    of_kind = tl.num_programs(0) * num_channels
    tl.store(partial_sums, product, in_range)
    tl.store(partial_sums + of_kind, grad, in_range)
    if SHIFTED:
        # The sum over pixels of x's gradient (`backward_apply_kernel`), which need not be read again for it.
        rstd = tl.load(rstds + group)
        moved = tl.load(shift + channels, in_range, 0.0).to(tl.float32) - tl.load(means + group)
        normalised = (tl.sum(value_rows, axis=0) + num_pixels * moved) * rstd
        grad_shift = (scale * grad - num_pixels * mean_grad - normalised * mean_product) * rstd
        tl.store(partial_sums + 2 * of_kind, grad_shift, in_range)


@triton.jit
def backward_apply_kernel(
    x, grad_y, weight, bias, shift, means, rstds, mean_grads, mean_products,
    added,  # [N, P, C]: what else x's gradient is made of
    grad_x,  # [N, P, C], or of the first `split` channels
    grad_rest,  # of the others
    num_pixels, num_channels, group_width, split, scale, added_scale,
    SILU: tl.constexpr, SHIFTED: tl.constexpr, ADDED: tl.constexpr, SPLIT: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """x's gradient: rstd · (g·weight - mean(g·weight) - x̂ · mean(g·weight·x̂)), with x̂ the normalised x.

    ADDED: plus another gradient of x, e.g. of the shortcut. SPLIT: the result goes to two tensors by channel,
    as x was the concatenation of two.
    """
    offsets, inside, channels = _tile(tl.program_id(0), num_pixels, num_channels, PIXELS, CHANNELS)
    normalised, grad = _gradients(
        x, grad_y, weight, bias, shift, means, rstds, offsets, inside, channels, num_channels, group_width,
        scale, SILU, SHIFTED,
    )  # fmt: skip
    in_range = channels < num_channels
    group = tl.program_id(1) * (num_channels // group_width) + channels // group_width
    grad *= tl.load(weight + channels, in_range, 0.0).to(tl.float32)[None, :]
    grad -= tl.load(mean_grads + group, in_range, 0.0)[None, :]
    grad -= normalised * tl.load(mean_products + group, in_range, 0.0)[None, :]
    grad *= tl.load(rstds + group, in_range, 0.0)[None, :]
    if ADDED:
        grad += tl.load(added + offsets, inside, 0.0).to(tl.float32) * added_scale
    grad = grad.to(grad_x.dtype.element_ty)
    if SPLIT:
        pixels = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        pixels = (tl.program_id(1).to(tl.int64) * num_pixels + pixels)[:, None]
        first = (channels < split)[None, :]
        tl.store(grad_x + pixels * split + channels[None, :], grad, inside & first)
        rest = num_channels - split
        tl.store(grad_rest + pixels * rest + (channels - split)[None, :], grad, inside & ~first)
    else:
        tl.store(grad_x + offsets, grad, inside)
