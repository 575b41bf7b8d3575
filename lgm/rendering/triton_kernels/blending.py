"""Splats to pixels, and gradients back: one program of one warp a tile, splats front to back.

Each thread holds eight of a tile's pixels in registers, and a splat's numbers are read once for
all of them. The backward pass walks the same way and computes everything again: what lies behind a
splat is the whole minus what lies before it. A splat's gradients are summed over the tile's pixels
before they touch memory, and splats that no pixel sees are passed over.
"""

import triton
import triton.language as tl

from lgm.rendering.triton_kernels.projection import GRAD_ROW, MIN_ALPHA, SPLAT_ROW, TILE

MAX_ALPHA = tl.constexpr(0.99)
MIN_TRANSMITTANCE = tl.constexpr(1e-4)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _pixels(tile, rows, columns, height, width):
    """Picture, pixel coordinates and offset in a plane of a tile's pixels."""
    image, within = tile // (rows * columns), tile % (rows * columns)
    p = tl.arange(0, TILE * TILE)
    x = (within % columns) * TILE + p % TILE
    y = (within // columns) * TILE + p // TILE
    return image, x, y, (x < width) & (y < height), y * width + x


@triton.jit
def _splat(splats, opacities, colors, pairs, slot, first_row):
    """The numbers of the splat that stands at `slot` in the tiles' lists, and its row in its scene."""
    pair = tl.load(pairs + slot).to(tl.int64)
    row, place = splats + pair * SPLAT_ROW, pair + first_row
    mean_x, mean_y, depth = tl.load(row), tl.load(row + 1), tl.load(row + 5)
    cxx, cxy, cyy = tl.load(row + 2), tl.load(row + 3), tl.load(row + 4)
    opacity, color = tl.load(opacities + place), colors + place * 3
    red, green, blue = tl.load(color), tl.load(color + 1), tl.load(color + 2)
    return mean_x, mean_y, cxx, cxy, cyy, depth, opacity, red, green, blue


@triton.jit
def _falloff(mean_x, mean_y, cxx, cxy, cyy, opacity, x, y):
    """Of a splat at a tile's pixels: offsets, alpha before its cap, alpha (0 below its threshold)."""
    dx, dy = mean_x - x, mean_y - y
    power = dx * ((-0.5 * LOG2_E) * cxx * dx - LOG2_E * cxy * dy) + (-0.5 * LOG2_E) * cyy * dy * dy
    raw = opacity * tl.exp2(power)
    return dx, dy, raw, tl.where(raw >= MIN_ALPHA, tl.minimum(raw, MAX_ALPHA), 0.0)


@triton.jit
def blend_kernel(
    splats, opacities, colors, pairs, starts,  # [P, SPLAT_ROW], [B, N], [B, N, 3], [M], [tiles + 1]
    images, depths, light,  # [I, 3, H, W] and [I, H, W], read and written
    alive,  # [tiles] uint8
    num_gaussians, num_views, rows, columns, height, width,
    UNROLL: tl.constexpr,
):  # fmt: skip
    """light: what passes all splats so far; negative where blending has ended, before the splat that
    would have brought it under 1e-4. Pictures hold the sums over splats, without background."""
    tile = tl.program_id(0)
    image, x, y, in_picture, offset = _pixels(tile, rows, columns, height, width)
    plane, size = image.to(tl.int64) * height * width, height * width
    through = tl.load(light + plane + offset, in_picture, -1.0)
    target = images + plane * 3 + offset
    red = tl.load(target, in_picture, 0.0)
    green = tl.load(target + size, in_picture, 0.0)
    blue = tl.load(target + 2 * size, in_picture, 0.0)
    depth_sum = tl.load(depths + plane + offset, in_picture, 0.0)
    # An intersection's pair counts from the first picture; its colour lies with its scene.
    first_row = (image // num_views - image).to(tl.int64) * num_gaussians
    x, y = x.to(tl.float32), y.to(tl.float32)

    begin, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    while (begin < end) & (tl.max(through, 0) > 0):
        for i in tl.static_range(UNROLL):
            # Past the end the last splat is read again and made invisible.
            s_x, s_y, cxx, cxy, cyy, depth, opacity, r, g, b = _splat(
                splats, opacities, colors, pairs, tl.minimum(begin + i, end - 1), first_row
            )
            opacity = tl.where(begin + i < end, opacity, 0.0)
            _, _, _, alpha = _falloff(s_x, s_y, cxx, cxy, cyy, opacity, x, y)
            after = through * (1 - alpha)
            drawn = after >= MIN_TRANSMITTANCE
            weight = tl.where(drawn, alpha * through, 0.0)
            red += weight * r
            green += weight * g
            blue += weight * b
            depth_sum += weight * depth
            through = tl.where(drawn, after, -tl.abs(through))
        begin += UNROLL

    tl.store(target, red, in_picture)
    tl.store(target + size, green, in_picture)
    tl.store(target + 2 * size, blue, in_picture)
    tl.store(depths + plane + offset, depth_sum, in_picture)
    tl.store(light + plane + offset, through, in_picture)
    tl.store(alive + tile, (tl.max(through, 0) > 0).to(tl.uint8))


@triton.jit
def blend_backward_kernel(
    splats, opacities, colors, pairs, slots, starts,
    totals,  # [I, H, W]: the sum over all splats of weight × value
    grad_images, grad_depths, grad_alphas,  # [I, 3, H, W], [I, H, W]: of the sums over splats
    light, passed,  # [I, H, W], read and written: light so far, and the total's part so far
    grads,  # [M, GRAD_ROW], by the slot in which an intersection was emitted; zeros
    num_gaussians, num_views, rows, columns, height, width,
):  # fmt: skip
    """value: what a splat's weight adds to the loss, its colour, depth and coverage times their
    gradients. An alpha at its cap passes gradients as if there were no cap."""
    tile = tl.program_id(0)
    image, x, y, in_picture, offset = _pixels(tile, rows, columns, height, width)
    plane, size = image.to(tl.int64) * height * width, height * width
    through = tl.load(light + plane + offset, in_picture, -1.0)
    before = tl.load(passed + plane + offset, in_picture, 0.0)
    total = tl.load(totals + plane + offset, in_picture, 0.0)
    source = grad_images + plane * 3 + offset
    g_red = tl.load(source, in_picture, 0.0)
    g_green = tl.load(source + size, in_picture, 0.0)
    g_blue = tl.load(source + 2 * size, in_picture, 0.0)
    g_depth = tl.load(grad_depths + plane + offset, in_picture, 0.0)
    g_alpha = tl.load(grad_alphas + plane + offset, in_picture, 0.0)
    first_row = (image // num_views - image).to(tl.int64) * num_gaussians
    x, y = x.to(tl.float32), y.to(tl.float32)

    begin, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    some_light = tl.max(through, 0) > 0
    while (begin < end) & some_light:
        s_x, s_y, cxx, cxy, cyy, depth, opacity, r, g, b = _splat(
            splats, opacities, colors, pairs, begin, first_row
        )
        dx, dy, raw, alpha = _falloff(s_x, s_y, cxx, cxy, cyy, opacity, x, y)
        if tl.max((alpha > 0).to(tl.int32), 0) > 0:
            after = through * (1 - alpha)
            drawn = after >= MIN_TRANSMITTANCE
            weight = tl.where(drawn, alpha * through, 0.0)
            value = g_red * r + g_green * g + g_blue * b + g_depth * depth + g_alpha
            before += weight * value
            d_power = tl.where(
                drawn & (alpha > 0), (through * value - (total - before) / (1 - alpha)) * raw, 0.0
            )
            through = tl.where(drawn, after, -tl.abs(through))
            step_x, step_y = d_power * dx, d_power * dy
            sum_x, sum_y = tl.sum(step_x, 0), tl.sum(step_y, 0)
            grad = grads + tl.load(slots + begin) * GRAD_ROW
            tl.store(grad, -(cxx * sum_x + cxy * sum_y))
            tl.store(grad + 1, -(cyy * sum_y + cxy * sum_x))
            tl.store(grad + 2, -0.5 * tl.sum(step_x * dx, 0))
            tl.store(grad + 3, -tl.sum(step_x * dy, 0))
            tl.store(grad + 4, -0.5 * tl.sum(step_y * dy, 0))
            tl.store(grad + 5, tl.sum(weight * g_depth, 0))
            tl.store(grad + 6, tl.sum(d_power, 0) / tl.maximum(opacity, MIN_ALPHA))
            tl.store(grad + 7, tl.sum(weight * g_red, 0))
            tl.store(grad + 8, tl.sum(weight * g_green, 0))
            tl.store(grad + 9, tl.sum(weight * g_blue, 0))
            some_light = tl.max((through > 0).to(tl.int32), 0) > 0
        begin += 1

    tl.store(light + plane + offset, through, in_picture)
    tl.store(passed + plane + offset, before, in_picture)


@triton.jit
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
    used = part < GRAD_ROW
    total = tl.zeros([BLOCK, 16], tl.float32)
    for i in range(tl.max(count, 0)):
        mask = (inside & (i < count))[:, None] & used[None, :]
        total += tl.load(grads + (begin + i)[:, None] * GRAD_ROW + part[None, :], mask, 0.0)
    tl.store(pair_grads + pair[:, None] * GRAD_ROW + part[None, :], total, inside[:, None] & used[None, :])
