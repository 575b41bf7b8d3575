"""EWA splatting: Gaussians to ellipses in images. One program computes the covariances of a block of
Gaussians once and then projects them into all views of their scene.

The same formulas as `lgm.rendering.projection`, which explains them.
"""

import triton
import triton.language as tl

from lgm.rendering import projection, tiles

NEAR = tl.constexpr(projection.NEAR)
BLUR_VARIANCE = tl.constexpr(projection.BLUR_VARIANCE)
JACOBIAN_MARGIN = tl.constexpr(projection.JACOBIAN_MARGIN)
MIN_ALPHA = tl.constexpr(tiles.MIN_ALPHA)
LOG2_MIN_ALPHA = tl.constexpr(-7.994353436858858)  # log2(1/255)
TILE = tl.constexpr(tiles.REFERENCE_TILE)
LOG2_E = tl.constexpr(1.4426950408889634)
# A row of `splats`, a pair: x, y, coefficients of dx², dx·dy and dy², log2 of the opacity, depth;
# alpha = 2 ** (the opacity's + xx dx² + xy dx dy + yy dy²). One of padding.
SPLAT_ROW = tl.constexpr(8)
GRAD_ROW = tl.constexpr(12)  # ten sums, see blend_backward_kernel, and two of padding


@triton.jit
def scaled_axes(quats, scales, rows, inside):
    """The columns of rotation · diag(scales), row by row, preceded by the quaternion (wxyz) and the scales.

    Quaternions are taken as they are: unit length is the caller's.
    """
    w = tl.load(quats + rows * 4, inside, 1.0)
    x = tl.load(quats + rows * 4 + 1, inside, 0.0)
    y = tl.load(quats + rows * 4 + 2, inside, 0.0)
    z = tl.load(quats + rows * 4 + 3, inside, 0.0)
    s0 = tl.load(scales + rows * 3, inside, 0.0)
    s1 = tl.load(scales + rows * 3 + 1, inside, 0.0)
    s2 = tl.load(scales + rows * 3 + 2, inside, 0.0)
    r00, r01, r02 = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    r10, r11, r12 = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    r20, r21, r22 = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return w, x, y, z, s0, s1, s2, r00, r01, r02, r10, r11, r12, r20, r21, r22


@triton.jit
def camera(c2w, K_norm, image, height, width):
    """World-to-camera rotation (rows) and translation, focal lengths and principal point in pixels, of one
    image.
    """
    pose, k = c2w + image * 16, K_norm + image * 9
    # c2w is stored row by row; its rotation is read transposed, which inverts it.
    r00, r10, r20, x = tl.load(pose), tl.load(pose + 1), tl.load(pose + 2), tl.load(pose + 3)
    r01, r11, r21, y = tl.load(pose + 4), tl.load(pose + 5), tl.load(pose + 6), tl.load(pose + 7)
    r02, r12, r22, z = tl.load(pose + 8), tl.load(pose + 9), tl.load(pose + 10), tl.load(pose + 11)
    t0, t1, t2 = (
        -(r00 * x + r01 * y + r02 * z),
        -(r10 * x + r11 * y + r12 * z),
        -(r20 * x + r21 * y + r22 * z),
    )
    fx, cx = tl.load(k) * width, tl.load(k + 2) * width
    fy, cy = tl.load(k + 4) * height, tl.load(k + 5) * height
    return r00, r01, r02, t0, r10, r11, r12, t1, r20, r21, r22, t2, fx, fy, cx, cy


@triton.jit
def perspective(is_orthographic, image, z, ORTHOGRAPHIC: tl.constexpr):
    """The divisor of camera coordinates, and 0 where the Jacobian has no part along the axis, else 1.

    ORTHOGRAPHIC: whether any camera may be; otherwise the flags are not read.
    """
    divisor, slant = z, tl.full(z.shape, 1.0, tl.float32)
    if ORTHOGRAPHIC:
        is_parallel = tl.load(is_orthographic + image) != 0
        divisor = tl.where(is_parallel, 1.0, z)
        slant = tl.where(is_parallel, 0.0, slant)
    return divisor, slant


@triton.jit
def bend_limits(focal, center, size):
    """The slopes x/z that a ray may have before the Jacobian bends it back to the image's margin."""
    margin = JACOBIAN_MARGIN * 0.5 * size
    return (-center - margin) / focal, (size - center + margin) / focal


@triton.jit
def _tile_range(center, extent, radius, size):
    """First tile, and one past the last, along one axis: where alpha can reach 1/255, within the
    tiles that a square of three standard deviations touches (the published rasterizer's cut)."""
    slack = 1e-3 + 1e-5 * extent  # rounding must not lose what lies just inside the threshold
    first = tl.ceil((center - extent - slack - (TILE - 1)) / TILE)
    last = tl.floor((center + extent + slack) / TILE) + 1
    first = tl.maximum(first, tl.floor((center - radius) / TILE))
    last = tl.minimum(last, tl.floor((center + radius + TILE - 1) / TILE))
    num_tiles = (size + TILE - 1) // TILE
    first = tl.minimum(tl.maximum(first, 0.0), num_tiles)
    last = tl.minimum(tl.maximum(last, 0.0), num_tiles)
    return first.to(tl.int32), last.to(tl.int32)


@triton.jit
def _touches(mean_x, mean_y, e_xx, e_xy, e_yy, log_opacity, column, line):
    """Whether alpha may reach 1/255 at a pixel of a tile: its largest value over the tile's rectangle of
    pixel centres lies at the splat's own centre, or on one of the two edges that face that."""
    left, top = (column * TILE).to(tl.float32), (line * TILE).to(tl.float32)
    to_left, to_top = left - mean_x, top - mean_y
    to_right, to_bottom = to_left + (TILE - 1), to_top + (TILE - 1)
    near_x = tl.minimum(tl.maximum(to_left, 0.0), to_right)
    near_y = tl.minimum(tl.maximum(to_top, 0.0), to_bottom)
    # The largest exponent along x = near_x, and along y = near_y.
    along_y = tl.minimum(tl.maximum(-0.5 * e_xy * near_x / e_yy, to_top), to_bottom)
    along_x = tl.minimum(tl.maximum(-0.5 * e_xy * near_y / e_xx, to_left), to_right)
    on_column = near_x * (e_xx * near_x + e_xy * along_y) + e_yy * along_y * along_y
    on_line = along_x * (e_xx * along_x + e_xy * near_y) + e_yy * near_y * near_y
    # Rounding must not lose what lies just inside the threshold.
    return log_opacity + tl.maximum(on_column, on_line) >= LOG2_MIN_ALPHA - 0.01


@triton.jit
def project_kernel(
    means, quats, scales, opacities, c2w, K_norm, is_orthographic,  # [B, N, …], [I, 4, 4], [I, 3, 3], [I]
    splats,  # [P, SPLAT_ROW]
    tiles_x, tiles_y,  # [P] int32: first tile, and one past the last in the upper half
    seen,  # [P] int64: one bit a tile of that rectangle, row by row; all where they are more than 64
    counts,  # [P] int32: tiles that are seen
    depth_keys,  # [P] int32: the depth's bits, largest where nothing is touched
    num_gaussians, num_views, height, width,
    ORTHOGRAPHIC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Splats, tile rectangles and depth keys of a block of Gaussians in all views of their scene.

    One program per block and scene. Only visible pairs write their row of `splats`; the other rows stay
    undefined and are never read, since their counts are 0.
    """
    block, scene = tl.program_id(0), tl.program_id(1)
    n = block * BLOCK + tl.arange(0, BLOCK)
    inside = n < num_gaussians
    rows = (scene * num_gaussians + n).to(tl.int64)
    mean_x = tl.load(means + rows * 3, inside, 0.0)
    mean_y = tl.load(means + rows * 3 + 1, inside, 0.0)
    mean_z = tl.load(means + rows * 3 + 2, inside, 0.0)
    opacity = tl.load(opacities + rows, inside, 0.0)
    (_, _, _, _, s0, s1, s2, q00, q01, q02, q10, q11, q12, q20, q21, q22) = scaled_axes(
        quats, scales, rows, inside
    )
    # alpha reaches 1/255 inside of this many standard deviations
    reach = tl.sqrt(tl.maximum(2 * tl.log(tl.maximum(opacity, MIN_ALPHA) * 255), 0.0))
    log_opacity = tl.log2(tl.maximum(opacity, MIN_ALPHA))

    for view in range(num_views):
        image = scene * num_views + view
        (r00, r01, r02, t0, r10, r11, r12, t1, r20, r21, r22, t2, fx, fy, cx, cy) = camera(
            c2w, K_norm, image, height, width
        )
        cam_x = r00 * mean_x + r01 * mean_y + r02 * mean_z + t0
        cam_y = r10 * mean_x + r11 * mean_y + r12 * mean_z + t1
        cam_z = r20 * mean_x + r21 * mean_y + r22 * mean_z + t2
        in_front = cam_z > NEAR
        # Hidden Gaussians get a harmless depth: a division by zero would make NaN, not nothing.
        z = tl.where(in_front, cam_z, 1.0)
        divisor, slant = perspective(is_orthographic, image, z, ORTHOGRAPHIC)
        slope_x, slope_y = cam_x / divisor, cam_y / divisor
        low_x, high_x = bend_limits(fx, cx, width)
        low_y, high_y = bend_limits(fy, cy, height)
        bent_x = tl.minimum(tl.maximum(slope_x, low_x), high_x)
        bent_y = tl.minimum(tl.maximum(slope_y, low_y), high_y)
        if ORTHOGRAPHIC:
            bent_x, bent_y = bent_x * slant, bent_y * slant
        scale_x, scale_y = fx / divisor, fy / divisor
        # Rows of J · W, the projection's Jacobian in world coordinates.
        jx0, jx1, jx2 = (
            scale_x * (r00 - bent_x * r20),
            scale_x * (r01 - bent_x * r21),
            scale_x * (r02 - bent_x * r22),
        )
        jy0, jy1, jy2 = (
            scale_y * (r10 - bent_y * r20),
            scale_y * (r11 - bent_y * r21),
            scale_y * (r12 - bent_y * r22),
        )
        ux, uy = (jx0 * q00 + jx1 * q10 + jx2 * q20) * s0, (jy0 * q00 + jy1 * q10 + jy2 * q20) * s0
        vx, vy = (jx0 * q01 + jx1 * q11 + jx2 * q21) * s1, (jy0 * q01 + jy1 * q11 + jy2 * q21) * s1
        wx, wy = (jx0 * q02 + jx1 * q12 + jx2 * q22) * s2, (jy0 * q02 + jy1 * q12 + jy2 * q22) * s2
        sharp_xx = ux * ux + vx * vx + wx * wx
        sharp_xy = ux * uy + vx * vy + wx * wy
        sharp_yy = uy * uy + vy * vy + wy * wy
        cov_xx, cov_yy = sharp_xx + BLUR_VARIANCE, sharp_yy + BLUR_VARIANCE
        # Determinant by Cauchy-Binet: a sum of positive terms, without the cancellation of xx · yy - xy².
        m0, m1, m2 = vx * wy - wx * vy, wx * uy - ux * wy, ux * vy - vx * uy
        determinant = m0 * m0 + m1 * m1 + m2 * m2 + BLUR_VARIANCE * (sharp_xx + cov_yy)
        x, y = fx * slope_x + (cx - 0.5), fy * slope_y + (cy - 0.5)

        half = 0.5 * (cov_xx - cov_yy)
        # Larger eigenvalue, with the published program's floor of 0.1: its cut at tiles needs the same
        # radius.
        spread = tl.sqrt(tl.maximum(half * half + sharp_xy * sharp_xy, 0.1))
        radius = tl.ceil(3 * tl.sqrt(0.5 * (cov_xx + cov_yy) + spread))
        left, right = _tile_range(x, reach * tl.sqrt(cov_xx), radius, width)
        top, bottom = _tile_range(y, reach * tl.sqrt(cov_yy), radius, height)
        visible = in_front & (opacity >= MIN_ALPHA) & (right > left) & (bottom > top) & inside

        pair = image.to(tl.int64) * num_gaussians + n
        row = splats + pair * SPLAT_ROW
        tl.store(row, x, visible)
        tl.store(row + 1, y, visible)
        # In base 2, so that blending needs one exp2 and no factor.
        e_xx, e_yy = cov_yy * (-0.5 * LOG2_E) / determinant, cov_xx * (-0.5 * LOG2_E) / determinant
        e_xy = sharp_xy * LOG2_E / determinant
        tl.store(row + 2, e_xx, visible)
        tl.store(row + 3, e_xy, visible)
        tl.store(row + 4, e_yy, visible)
        tl.store(row + 5, log_opacity, visible)
        tl.store(row + 6, z, visible)
        tl.store(tiles_x + pair, tl.where(visible, left | (right << 16), 0), inside)
        tl.store(tiles_y + pair, tl.where(visible, top | (bottom << 16), 0), inside)
        bits, count = tl.zeros([BLOCK], tl.int64), tl.zeros([BLOCK], tl.int32)
        columns = tl.maximum(right - left, 1)
        area = tl.where(visible, (right - left) * (bottom - top), 0)
        # A tile-ellipse test for rectangles whose tiles fit into the 64 bits of `seen`.
        for i in range(tl.max(tl.where(area <= 64, area, 0), 0)):
            column, line = left + i % columns, top + i // columns
            touched = (i < area) & _touches(x, y, e_xx, e_xy, e_yy, log_opacity, column, line)
            bits |= touched.to(tl.int64) << i
            count += touched.to(tl.int32)
        visible = visible & ((count > 0) | (area > 64))
        tl.store(seen + pair, tl.where(area <= 64, bits, -1), inside)
        tl.store(counts + pair, tl.where(area <= 64, count, area), inside)
        # Positive floats sort as their bits do.
        key = tl.where(visible, z.to(tl.int32, bitcast=True), 0x7FFFFFFF)
        tl.store(depth_keys + pair, key, inside)
