"""Alpha compositing of splats, and its gradients: one program of one warp a tile, splats front to back.

A tile's pixels are [8, 32]: a lane holds one column's pixels of every second row in registers, so
that whatever depends on x alone is computed once for eight pixels, and a splat's numbers are read
once for all of them. The backward pass walks the same way and computes everything again: what lies
behind a splat is the whole minus what lies before it. A splat's gradients are summed over the
tile's pixels before they touch memory, and splats that no pixel sees are passed over.
"""

import triton
import triton.language as tl

from lgm.rendering import blending
from lgm.rendering.triton_kernels.projection import GRAD_ROW, MIN_ALPHA, SPLAT_ROW, TILE

MAX_ALPHA = tl.constexpr(blending.MAX_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(blending.MIN_TRANSMITTANCE)
LANES = tl.constexpr(32)
ROWS_A_WARP = tl.constexpr(2)  # rows of a tile that the lanes span
NUM_SUMS = tl.constexpr(10)  # gradients a splat: six of its shape, three of colour, one of depth
SPLATS_A_LOOK = tl.constexpr(8)  # between checks whether the whole tile is opaque


@triton.jit
def _pixels(tile, part, rows, columns, height, width, LINES: tl.constexpr):
    """Of a part of a tile: its image, x of its pixels [32] and y [LINES, 32], which lie in the image,
    and their offsets in a plane."""
    image, within = tile // (rows * columns), tile % (rows * columns)
    lane = tl.arange(0, LANES)
    x = (within % columns) * TILE + lane % TILE
    first_y = (within // columns) * TILE + part * (LINES * ROWS_A_WARP) + lane // TILE
    y = first_y[None, :] + ROWS_A_WARP * tl.arange(0, LINES)[:, None]
    offset = y * width + x[None, :]
    # No multiple of anything, so that a lane gets no four neighbours: the compiler takes the layout of
    # all the arithmetic from these accesses. (Told of nothing side by side either, it would turn the
    # pixels over, and every sum over axis 0 would be one over lanes, three times as many instructions.)
    return image, x, y, (x < width)[None, :] & (y < height), tl.multiple_of(offset, [1, 1])


@triton.jit
def _any(condition):
    """True at any pixel of a tile; a warp reduces integers in one instruction, floats in ten."""
    return tl.max(tl.max(condition.to(tl.int32), 0), 0) > 0


@triton.jit
def _shape(row):
    """Centre, exponent's coefficients and log2 of the opacity, of the splat at `row`."""
    mean_x, mean_y, log_opacity = tl.load(row), tl.load(row + 1), tl.load(row + 5)
    return mean_x, mean_y, tl.load(row + 2), tl.load(row + 3), tl.load(row + 4), log_opacity


@triton.jit
def _color(row, colors, color_row):
    color = colors + color_row * 3
    return tl.load(color), tl.load(color + 1), tl.load(color + 2), tl.load(row + 6)


@triton.jit
def _falloff(mean_x, mean_y, e_xx, e_xy, e_yy, log_opacity, x, y):
    """Offsets dx [32] and dy [8, 32], and a splat's alpha before its cap."""
    dx, dy = mean_x - x, mean_y - y
    at_row, slope = log_opacity + e_xx * dx * dx, e_xy * dx
    return dx, dy, tl.exp2(at_row[None, :] + dy * (slope[None, :] + e_yy * dy))


@triton.jit
def blend_kernel(
    splats, colors, pairs, starts,  # [P, SPLAT_ROW], [B, N, 3], [M], [tiles + 1]
    backgrounds,  # [I, 3], or [3] with a step of 0
    images, depths, alphas,  # [I, 3, H, W] and [I, H, W]
    light,  # [I, H, W]: between layers, what passes all splats so far
    alive,  # [tiles] uint8: between layers, tiles that still let light through
    background_step, num_gaussians, num_views, rows, columns, height, width,
    UNROLL: tl.constexpr, PARTS: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """One layer of all images; sums over splats are kept in the images between layers.

    light: negative where blending has ended, before the splat that would bring it under 1e-4.
    PARTS: programs that share a tile's lines; more than 1 only where there is one layer.
    """
    tile = tl.program_id(0) // PARTS
    LINES: tl.constexpr = TILE // ROWS_A_WARP // PARTS
    image, x, y, in_image, offset = _pixels(
        tile, tl.program_id(0) % PARTS, rows, columns, height, width, LINES
    )
    size = height * width
    plane = image.to(tl.int64) * size
    target = images + plane * 3 + offset
    if FIRST:
        nothing = tl.zeros([LINES, LANES], tl.float32)
        red, green, blue, depth_sum = nothing, nothing, nothing, nothing
        through = tl.where(in_image, nothing + 1.0, -1.0)  # transmittance; negative where blending has ended
    else:
        red = tl.load(target, in_image, 0.0)
        green = tl.load(target + size, in_image, 0.0)
        blue = tl.load(target + 2 * size, in_image, 0.0)
        depth_sum = tl.load(depths + plane + offset, in_image, 0.0)
        through = tl.load(light + plane + offset, in_image, -1.0)
    # A pair counts from the first image; its colour lies with its scene.
    first_row = (image // num_views - image).to(tl.int64) * num_gaussians
    x, y = x.to(tl.float32), y.to(tl.float32)

    begin, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    while (begin < end) & _any(through > 0):
        for i in tl.static_range(UNROLL):
            # Past the end the last splat is read again and made invisible.
            pair = tl.load(pairs + tl.minimum(begin + i, end - 1)).to(tl.int64)
            row = splats + pair * SPLAT_ROW
            mean_x, mean_y, e_xx, e_xy, e_yy, log_opacity = _shape(row)
            r, g, b, depth = _color(row, colors, pair + first_row)
            log_opacity = tl.where(begin + i < end, log_opacity, -float("inf"))
            _, _, raw = _falloff(mean_x, mean_y, e_xx, e_xy, e_yy, log_opacity, x, y)
            alpha = tl.where(raw >= MIN_ALPHA, tl.minimum(raw, MAX_ALPHA), 0.0)
            after = through * (1 - alpha)
            drawn = after >= MIN_TRANSMITTANCE  # never again where `through` is negative
            weight = tl.where(drawn, alpha * through, 0.0)
            red += weight * r
            green += weight * g
            blue += weight * b
            depth_sum += weight * depth
            through = tl.where(drawn, after, -tl.abs(through))
        begin += UNROLL

    if LAST:
        passing = tl.abs(through)
        background = backgrounds + image * background_step
        red += passing * tl.load(background)  # what no splat absorbed shows the background
        green += passing * tl.load(background + 1)
        blue += passing * tl.load(background + 2)
        tl.store(alphas + plane + offset, 1 - passing, in_image)
    else:
        tl.store(light + plane + offset, through, in_image)
        tl.store(alive + tile, _any(through > 0).to(tl.uint8))
    tl.store(target, red, in_image)
    tl.store(target + size, green, in_image)
    tl.store(target + 2 * size, blue, in_image)
    tl.store(depths + plane + offset, depth_sum, in_image)


@triton.jit
def _fold(a, b, partners, upper):
    """Half of the way to the sums of two values over the lanes: what the lower lanes keep is of `a`,
    the upper lanes' of `b`."""
    return tl.where(upper, b, a) + tl.gather(tl.where(upper, a, b), partners, 0)


@triton.jit
def _sums_over_lanes(v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, lane):
    """The sums of ten values [32] over the lanes, one sum a lane: `_sum_of_lane` says which where.

    A butterfly that halves the number of values with the distance: 12 exchanges instead of 50.
    """
    upper, partners = (lane & 16) > 0, lane ^ 16
    v0, v2 = _fold(v0, v1, partners, upper), _fold(v2, v3, partners, upper)
    v4, v6 = _fold(v4, v5, partners, upper), _fold(v6, v7, partners, upper)
    v8 = _fold(v8, v9, partners, upper)
    upper, partners = (lane & 8) > 0, lane ^ 8
    v0, v4 = _fold(v0, v2, partners, upper), _fold(v4, v6, partners, upper)
    v8 += tl.gather(v8, partners, 0)
    upper, partners = (lane & 4) > 0, lane ^ 4
    v0, v8 = _fold(v0, v4, partners, upper), v8 + tl.gather(v8, partners, 0)
    v0 = _fold(v0, v8, lane ^ 2, (lane & 2) > 0)
    return v0 + tl.gather(v0, lane ^ 1, 0)


@triton.jit
def _sum_of_lane(lane):
    """Which of the ten sums a lane holds, NUM_SUMS where another lane holds it too."""
    high, middle, low = (lane >> 4) & 1, (lane >> 3) & 1, (lane >> 2) & 1
    is_late = (lane & 2) > 0  # the ninth and tenth
    number = tl.where(is_late, 8 + high, 4 * low + 2 * middle + high)
    repeated = ((lane & 1) > 0) | (is_late & (middle + low > 0))
    return tl.where(repeated, NUM_SUMS, number)


@triton.jit
def blend_backward_kernel(
    splats, colors, pairs, slots, starts,
    images, depths, alphas,  # what the forward pass has drawn, background included
    grad_images, grad_depths, grad_alphas,  # [I, 3, H, W], [I, H, W]
    light, passed,  # [I, H, W]: between layers, light so far, and the whole's part so far
    grads,  # [M, GRAD_ROW], by the slot in which an intersection was emitted
    num_gaussians, num_views, rows, columns, height, width,
    HAS_DEPTHS: tl.constexpr, HAS_ALPHAS: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """value: what a splat's weight adds to the loss, its colour, depth and coverage times their
    gradients. An alpha at its cap passes gradients as if there were no cap.

    A row of `grads`: with d the gradient of log(alpha), sums over the tile's pixels of d·dx, d·dy,
    d·dx², d·dx·dy, d·dy², d, and of the gradients of red, green, blue and depth.
    """
    tile = tl.program_id(0)
    LINES: tl.constexpr = TILE // ROWS_A_WARP
    image, x, y, in_image, offset = _pixels(tile, 0, rows, columns, height, width, LINES)
    size = height * width
    plane = image.to(tl.int64) * size
    source, target = grad_images + plane * 3 + offset, images + plane * 3 + offset
    g_red = tl.load(source, in_image, 0.0)
    g_green = tl.load(source + size, in_image, 0.0)
    g_blue = tl.load(source + 2 * size, in_image, 0.0)
    # The sum over all splats, and the background behind them, of weight × value.
    behind = g_red * tl.load(target, in_image, 0.0)
    behind += g_green * tl.load(target + size, in_image, 0.0)
    behind += g_blue * tl.load(target + 2 * size, in_image, 0.0)
    nothing = tl.zeros([LINES, LANES], tl.float32)
    g_depth, g_alpha = nothing, nothing
    if HAS_DEPTHS:
        g_depth = tl.load(grad_depths + plane + offset, in_image, 0.0)
        behind += g_depth * tl.load(depths + plane + offset, in_image, 0.0)
    if HAS_ALPHAS:
        g_alpha = tl.load(grad_alphas + plane + offset, in_image, 0.0)
        behind += g_alpha * tl.load(alphas + plane + offset, in_image, 0.0)
    if FIRST:
        through = tl.where(in_image, nothing + 1.0, -1.0)
    else:
        through = tl.load(light + plane + offset, in_image, -1.0)
        behind = tl.load(passed + plane + offset, in_image, 0.0)
    first_row = (image // num_views - image).to(tl.int64) * num_gaussians
    x, y = x.to(tl.float32), y.to(tl.float32)
    first_y, lane = tl.min(y, 0), tl.arange(0, LANES)
    part = _sum_of_lane(lane)

    begin, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    line = tl.arange(0, LINES).to(tl.float32)[:, None]
    # One splat ahead, so that only one load, not two in a row, is waited for in each turn.
    next_pair, next_slot = tl.load(pairs + begin, begin < end, 0), tl.load(slots + begin, begin < end, 0)
    while (begin < end) & _any(through > 0):
        stop = tl.minimum(begin + SPLATS_A_LOOK, end)
        while begin < stop:
            pair, slot, following = next_pair.to(tl.int64), next_slot, tl.minimum(begin + 1, end - 1)
            next_pair, next_slot = tl.load(pairs + following), tl.load(slots + following)
            row = splats + pair * SPLAT_ROW
            mean_x, mean_y, e_xx, e_xy, e_yy, log_opacity = _shape(row)
            r, g, b, depth = _color(row, colors, pair + first_row)
            dx, _, raw = _falloff(mean_x, mean_y, e_xx, e_xy, e_yy, log_opacity, x, y)
            raw = tl.where(raw >= MIN_ALPHA, raw, 0.0)
            alpha = tl.minimum(raw, MAX_ALPHA)
            left = 1 - alpha
            after = through * left
            drawn = after >= MIN_TRANSMITTANCE
            raw = tl.where(drawn, raw, 0.0)
            weight = tl.where(drawn, alpha * through, 0.0)
            value = g_red * r + g_green * g + g_blue * b
            if HAS_DEPTHS:
                value += g_depth * depth
            if HAS_ALPHAS:
                value += g_alpha
            root = tl.rsqrt(left)  # its square is 1 / left, without a division's dozen instructions
            d_power = (through * value - behind) * (raw * root * root)
            behind -= weight * value
            through = tl.where(drawn, after, -1.0)
            # dy is the topmost pixel's less two a line.
            d, d_line = tl.sum(d_power, 0), tl.sum(d_power * line, 0)
            d_lines = tl.sum(d_power * (line * line), 0)
            top = mean_y - first_y
            d_y = d * top - 2 * d_line
            d_yy = top * (d_y - 2 * d_line) + 4 * d_lines
            d_x = d * dx
            d_depth = tl.sum(weight * g_depth, 0) if HAS_DEPTHS else tl.zeros([LANES], tl.float32)
            sums = _sums_over_lanes(
                d_x, d_y, d_x * dx, d_y * dx, d_yy, d,
                tl.sum(weight * g_red, 0), tl.sum(weight * g_green, 0), tl.sum(weight * g_blue, 0),
                d_depth, lane,
            )  # fmt: skip
            tl.store(grads + slot * GRAD_ROW + part, sums, part < NUM_SUMS)
            begin += 1

    rest = tl.arange(0, 16)[None, :]
    while begin < end:  # what nobody sees
        rank = begin + lane
        slot = tl.load(slots + rank, rank < end, 0)
        row = grads + slot[:, None] * GRAD_ROW + rest
        tl.store(row, tl.zeros([LANES, 16], tl.float32), (rank < end)[:, None] & (rest < NUM_SUMS))
        begin += LANES
    if not LAST:
        tl.store(light + plane + offset, through, in_image)
        tl.store(passed + plane + offset, behind, in_image)


@triton.jit(do_not_specialize=["num_pairs"])
def gather_kernel(
    order, ends, counts, grads, pair_grads,  # [K], [K], [K], [M, GRAD_ROW], [P, GRAD_ROW]
    num_pairs,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum each pair's gradients over the tiles that it touches: its own stretch of slots, so nothing
    is added by two programs and the result is the same each time."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < num_pairs
    pair = tl.load(order + k, inside, 0)
    count = tl.load(counts + k, inside, 0)
    begin = tl.load(ends + k, inside, 0) - count
    part = tl.arange(0, 16)
    used = part < NUM_SUMS
    total = tl.zeros([BLOCK, 16], tl.float32)
    for i in range(tl.max(count, 0)):
        mask = (inside & (i < count))[:, None] & used[None, :]
        total += tl.load(grads + (begin + i)[:, None] * GRAD_ROW + part[None, :], mask, 0.0)
    tl.store(pair_grads + pair[:, None] * GRAD_ROW + part[None, :], total, inside[:, None] & used[None, :])
