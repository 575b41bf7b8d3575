"""Silhouette edges between neighbouring pixels.

Launched with `enable_fp_fusion=False`: which way a narrow face is turned must not depend on rounding.
"""

import triton
import triton.language as tl

from lgm.rendering.meshes.triton_kernels.rasterization import _corners


@triton.jit
def _as_seen(vertices, faces, matrices, face, image, center_x, center_y, near, mask, ROWS: tl.constexpr):
    """A face's corners relative to a pixel's centre, and whether all lie before the camera."""
    ax, ay, aw, az, bx, by, bw, bz, cx, cy, cw, cz = _corners(
        vertices, faces, matrices, face, image, mask, ROWS
    )
    aw, bw, cw = tl.where(az > near, aw, 1.0), tl.where(bz > near, bw, 1.0), tl.where(cz > near, cw, 1.0)
    ax, ay = tl.div_rn(ax, aw) - center_x, tl.div_rn(ay, aw) - center_y
    bx, by = tl.div_rn(bx, bw) - center_x, tl.div_rn(by, bw) - center_y
    cx, cy = tl.div_rn(cx, cw) - center_x, tl.div_rn(cy, cw) - center_y
    return ax, ay, bx, by, cx, cy, (az > near) & (bz > near) & (cz > near)


@triton.jit
def _crossing(along, across, next_along, next_across):
    """Where an edge crosses the line between the centres, -inf if nowhere, and how steep it is."""
    rise, run = next_across - across, next_along - along
    meets = (across <= 0) != (next_across <= 0)
    position = along - tl.div_rn(across * run, tl.where(meets, rise, 1.0))
    return tl.where(meets, position, -float("inf")), tl.abs(rise) - tl.abs(run)


@triton.jit
def silhouette_kernel(
    keys,  # [I, height, width] int64
    vertices, faces, adjacent, matrices,
    codes,  # [2, I, height, width] int32
    num_pixels, height, width, near,
    ROWS: tl.constexpr, MAX_STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As of `silhouettes.silhouette_codes`: a lane for each pixel and its neighbour along an axis."""
    one = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_upright = tl.program_id(1) == 1
    column, row = (one % width).to(tl.int32), (one // width % height).to(tl.int32)
    image = (one // width // height).to(tl.int32)
    right, down = tl.where(is_upright, 0, 1), tl.where(is_upright, 1, 0)
    mask = (one < num_pixels) & (column + right < width) & (row + down < height)
    first = tl.load(keys + one, mask, 0)
    second = tl.load(keys + one + tl.where(is_upright, width, 1), mask, 0)
    is_second = (second >> 32) < (first >> 32)
    direction = tl.where(is_second, -1.0, 1.0)
    center_x = (column + tl.where(is_second, right, 0)).to(tl.float32) + 0.5
    center_y = (row + tl.where(is_second, down, 0)).to(tl.float32) + 0.5
    active = mask & ((first & 0xFFFFFFFF) != (second & 0xFFFFFFFF))
    face = tl.where(active, tl.where(is_second, second, first) & 0x7FFFFFFF, 0).to(tl.int32)
    code = tl.zeros([BLOCK], tl.int32) - 1
    x0, y0, x1, y1, x2, y2, valid = _as_seen(
        vertices, faces, matrices, face, image, center_x, center_y, near, active, ROWS
    )
    step = 0
    while (step < MAX_STEPS) & (tl.max(active.to(tl.int32), 0) > 0):
        along0, across0 = tl.where(is_upright, y0, x0) * direction, tl.where(is_upright, x0, y0)
        along1, across1 = tl.where(is_upright, y1, x1) * direction, tl.where(is_upright, x1, y1)
        along2, across2 = tl.where(is_upright, y2, x2) * direction, tl.where(is_upright, x2, y2)
        position, steepness = _crossing(along0, across0, along1, across1)
        leaving = tl.zeros([BLOCK], tl.int32)
        position1, steepness1 = _crossing(along1, across1, along2, across2)
        later = position1 > position
        position, steepness = tl.where(later, position1, position), tl.where(later, steepness1, steepness)
        leaving = tl.where(later, 1, leaving)
        position2, steepness2 = _crossing(along2, across2, along0, across0)
        later = position2 > position
        position, steepness = tl.where(later, position2, position), tl.where(later, steepness2, steepness)
        leaving = tl.where(later, 2, leaving)

        active = active & valid & (position >= 0) & (position <= 1)
        other = tl.load(adjacent + face.to(tl.int64) * 3 + leaving, active, -1).to(tl.int32)
        exists = active & (other >= 0)
        other = tl.where(exists, other, 0)
        a0, b0, a1, b1, a2, b2, other_valid = _as_seen(
            vertices, faces, matrices, other, image, center_x, center_y, near, exists, ROWS
        )
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        other_area = (a1 - a0) * (b2 - b0) - (b1 - b0) * (a2 - a0)
        is_silhouette = (exists == 0) | (((area > 0) != (other_area > 0)) & other_valid)
        is_steep = tl.where(is_upright, steepness > 0, steepness >= 0)
        found = face * 6 + leaving * 2 + is_second.to(tl.int32)
        code = tl.where(active & is_silhouette & is_steep, found, code)
        active = active & (is_silhouette == 0) & other_valid
        face, valid = other, other_valid
        x0, y0, x1, y1, x2, y2 = a0, b0, a1, b1, a2, b2
        step += 1
    tl.store(codes + tl.program_id(1).to(tl.int64) * num_pixels + one, code, one < num_pixels)
