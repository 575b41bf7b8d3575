"""Splats to pixels, and gradients back: one program a tile, blocks of splats front to back.

Light through all splats before one is a product over them, so within a block it is a scan; what a
block adds to a picture is then a small matrix product. The backward pass walks the same way and
computes everything again: what lies behind a splat is the whole minus what lies before it.
"""

import triton
import triton.language as tl

from lgm.rendering.triton_kernels.projection import GRAD_ROW, MIN_ALPHA, SPLAT_ROW, TILE

MAX_ALPHA = tl.constexpr(0.99)
MIN_TRANSMITTANCE = tl.constexpr(1e-4)


@triton.jit
def _pixels(tile, rows, columns, height, width):
    """Picture, pixel coordinates and offset in a plane of a tile's pixels."""
    image, within = tile // (rows * columns), tile % (rows * columns)
    p = tl.arange(0, TILE * TILE)
    x = (within % columns) * TILE + p % TILE
    y = (within // columns) * TILE + p // TILE
    return image, x, y, (x < width) & (y < height), y * width + x


@triton.jit
def _alphas(splats, opacities, pair, scene_row, listed, x, y):
    """Of a block of splats at a tile's pixels [pixels, block]: offsets, conic, falloff, alpha."""
    row = splats + pair * SPLAT_ROW
    mean_x, mean_y = tl.load(row, listed, 0.0), tl.load(row + 1, listed, 0.0)
    cxx, cxy = tl.load(row + 2, listed, 0.0), tl.load(row + 3, listed, 0.0)
    cyy, depth = tl.load(row + 4, listed, 0.0), tl.load(row + 5, listed, 0.0)
    opacity = tl.load(opacities + scene_row, listed, 0.0)
    dx = mean_x[None, :] - x[:, None].to(tl.float32)
    dy = mean_y[None, :] - y[:, None].to(tl.float32)
    power = -0.5 * (cxx[None, :] * dx * dx + cyy[None, :] * dy * dy) - cxy[None, :] * dx * dy
    raw = opacity[None, :] * tl.exp(power)
    alpha = tl.minimum(raw, MAX_ALPHA)
    alpha = tl.where((alpha >= MIN_ALPHA) & listed[None, :], alpha, 0.0)
    return dx, dy, cxx, cxy, cyy, depth, opacity, raw, alpha


@triton.jit
def blend_kernel(
    splats, opacities, colors, pairs, starts,  # [P, SPLAT_ROW], [B, N], [B, N, 3], [M], [tiles + 1]
    images, depths, light, final_light,  # [I, 3, H, W] and [I, H, W], read and written
    alive,  # [tiles] uint8
    num_gaussians, num_views, rows, columns, height, width,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """light: what passes all splats so far; final_light: the same where blending stopped before the
    splat that would have brought it under 1e-4. Pictures hold the sums over splats, without background."""
    tile = tl.program_id(0)
    image, x, y, in_picture, offset = _pixels(tile, rows, columns, height, width)
    plane, size = image.to(tl.int64) * height * width, height * width
    through = tl.load(light + plane + offset, in_picture, 0.0)
    final = tl.load(final_light + plane + offset, in_picture, 1.0)
    target = images + plane * 3 + offset
    red = tl.load(target, in_picture, 0.0)
    green = tl.load(target + size, in_picture, 0.0)
    blue = tl.load(target + 2 * size, in_picture, 0.0)
    depth_sum = tl.load(depths + plane + offset, in_picture, 0.0)
    # An intersection's pair counts from the first picture; its colour lies with its scene.
    first_row = (image // num_views - image).to(tl.int64) * num_gaussians

    begin, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    while (begin < end) & (tl.max(through, 0) >= MIN_TRANSMITTANCE):
        slot = begin + tl.arange(0, BLOCK)
        listed = slot < end
        pair = tl.load(pairs + slot, listed, 0).to(tl.int64)
        row = pair + first_row
        _, _, _, _, _, depth, _, _, alpha = _alphas(splats, opacities, pair, row, listed, x, y)
        after = through[:, None] * tl.cumprod(1 - alpha, 1)
        drawn = after >= MIN_TRANSMITTANCE
        weight = tl.where(drawn, alpha * after / (1 - alpha), 0.0)
        red += tl.sum(weight * tl.load(colors + row * 3, listed, 0.0)[None, :], 1)
        green += tl.sum(weight * tl.load(colors + row * 3 + 1, listed, 0.0)[None, :], 1)
        blue += tl.sum(weight * tl.load(colors + row * 3 + 2, listed, 0.0)[None, :], 1)
        depth_sum += tl.sum(weight * depth[None, :], 1)
        final = tl.minimum(final, tl.min(tl.where(drawn, after, 1.0), 1))
        through = tl.min(after, 1)
        begin += BLOCK

    tl.store(target, red, in_picture)
    tl.store(target + size, green, in_picture)
    tl.store(target + 2 * size, blue, in_picture)
    tl.store(depths + plane + offset, depth_sum, in_picture)
    tl.store(light + plane + offset, through, in_picture)
    tl.store(final_light + plane + offset, final, in_picture)
    tl.store(alive + tile, (tl.max(through, 0) >= MIN_TRANSMITTANCE).to(tl.uint8))


@triton.jit
def blend_backward_kernel(
    splats, opacities, colors, pairs, slots, starts,
    totals,  # [I, H, W]: the sum over all splats of weight × value
    grad_images, grad_depths, grad_alphas,  # [I, 3, H, W], [I, H, W]: of the sums over splats
    light, passed,  # [I, H, W], read and written: light so far, and the total's part so far
    grads,  # [M, GRAD_ROW], by the slot in which an intersection was emitted
    num_gaussians, num_views, rows, columns, height, width,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """value: what a splat's weight adds to the loss, its colour, depth and coverage times their
    gradients. An alpha at its cap passes gradients as if there were no cap."""
    tile = tl.program_id(0)
    image, x, y, in_picture, offset = _pixels(tile, rows, columns, height, width)
    plane, size = image.to(tl.int64) * height * width, height * width
    through = tl.load(light + plane + offset, in_picture, 0.0)
    before = tl.load(passed + plane + offset, in_picture, 0.0)
    total = tl.load(totals + plane + offset, in_picture, 0.0)
    source = grad_images + plane * 3 + offset
    g_red = tl.load(source, in_picture, 0.0)
    g_green = tl.load(source + size, in_picture, 0.0)
    g_blue = tl.load(source + 2 * size, in_picture, 0.0)
    g_depth = tl.load(grad_depths + plane + offset, in_picture, 0.0)
    g_alpha = tl.load(grad_alphas + plane + offset, in_picture, 0.0)
    first_row = (image // num_views - image).to(tl.int64) * num_gaussians

    begin, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    while (begin < end) & (tl.max(through, 0) >= MIN_TRANSMITTANCE):
        slot = begin + tl.arange(0, BLOCK)
        listed = slot < end
        pair = tl.load(pairs + slot, listed, 0).to(tl.int64)
        row = pair + first_row
        dx, dy, cxx, cxy, cyy, depth, opacity, raw, alpha = _alphas(
            splats, opacities, pair, row, listed, x, y
        )
        after = through[:, None] * tl.cumprod(1 - alpha, 1)
        drawn = (after >= MIN_TRANSMITTANCE) & (alpha > 0)
        ahead = after / (1 - alpha)  # light that reaches the splat
        weight = tl.where(drawn, alpha * ahead, 0.0)
        red = tl.load(colors + row * 3, listed, 0.0)
        green = tl.load(colors + row * 3 + 1, listed, 0.0)
        blue = tl.load(colors + row * 3 + 2, listed, 0.0)
        value = g_red[:, None] * red[None, :] + g_green[:, None] * green[None, :]
        value += g_blue[:, None] * blue[None, :] + g_depth[:, None] * depth[None, :] + g_alpha[:, None]
        so_far = before[:, None] + tl.cumsum(weight * value, 1)
        behind = total[:, None] - so_far
        d_power = tl.where(drawn, (ahead * value - behind / (1 - alpha)) * raw, 0.0)

        step_x, step_y = d_power * dx, d_power * dy
        sum_x, sum_y = tl.sum(step_x, 0), tl.sum(step_y, 0)
        grad = grads + tl.load(slots + slot, listed, 0) * GRAD_ROW
        tl.store(grad, -(cxx * sum_x + cxy * sum_y), listed)
        tl.store(grad + 1, -(cyy * sum_y + cxy * sum_x), listed)
        tl.store(grad + 2, -0.5 * tl.sum(step_x * dx, 0), listed)
        tl.store(grad + 3, -tl.sum(step_x * dy, 0), listed)
        tl.store(grad + 4, -0.5 * tl.sum(step_y * dy, 0), listed)
        tl.store(grad + 5, tl.sum(weight * g_depth[:, None], 0), listed)
        tl.store(grad + 6, tl.sum(d_power, 0) / tl.maximum(opacity, MIN_ALPHA), listed)
        tl.store(grad + 7, tl.sum(weight * g_red[:, None], 0), listed)
        tl.store(grad + 8, tl.sum(weight * g_green[:, None], 0), listed)
        tl.store(grad + 9, tl.sum(weight * g_blue[:, None], 0), listed)
        before += tl.sum(weight * value, 1)
        through = tl.min(after, 1)
        begin += BLOCK

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
