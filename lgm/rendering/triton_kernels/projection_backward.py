"""Gradients from ellipses in images back to Gaussians: the reverse of `projection.project_kernel`.

The views of a block of Gaussians are summed in registers, in their order, not by atomics: the result is the
same each time.
"""

import triton
import triton.language as tl

from lgm.rendering.triton_kernels.projection import (
    GRAD_ROW,
    LOG2_E,
    MIN_ALPHA,
    SPLAT_ROW,
    bend_limits,
    camera,
    perspective,
    scaled_axes,
)


@triton.jit
def project_backward_kernel(
    means, quats, scales, opacities, c2w, K_norm, is_orthographic,
    splats, counts, pair_grads,  # [P, SPLAT_ROW], [P], [P, GRAD_ROW]
    grad_means, grad_quats, grad_scales, grad_opacities, grad_colors,  # [B, N, …]
    num_gaussians, num_views, height, width,
    ORTHOGRAPHIC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of means, quaternions, scales, opacities and colours from those of each pair's ten sums.

    pair_grads: the ten sums of `blending.blend_backward_kernel`, summed over tiles.
    Projections are computed again from the Gaussians instead of being stored: one pass over the views.
    """
    block, scene = tl.program_id(0), tl.program_id(1)
    n = block * BLOCK + tl.arange(0, BLOCK)
    inside = n < num_gaussians
    rows = (scene * num_gaussians + n).to(tl.int64)
    mean_x = tl.load(means + rows * 3, inside, 0.0)
    mean_y = tl.load(means + rows * 3 + 1, inside, 0.0)
    mean_z = tl.load(means + rows * 3 + 2, inside, 0.0)
    (w, x, y, z, s0, s1, s2, q00, q01, q02, q10, q11, q12, q20, q21, q22) = scaled_axes(
        quats, scales, rows, inside
    )
    a00, a01, a02 = q00 * s0, q01 * s1, q02 * s2
    a10, a11, a12 = q10 * s0, q11 * s1, q12 * s2
    a20, a21, a22 = q20 * s0, q21 * s1, q22 * s2
    nothing = tl.zeros([BLOCK], tl.float32)
    g_mx, g_my, g_mz = nothing, nothing, nothing
    g00, g01, g02 = nothing, nothing, nothing  # of the scaled axes, summed over the views
    g10, g11, g12 = nothing, nothing, nothing
    g20, g21, g22 = nothing, nothing, nothing
    g_opacity, g_r, g_g, g_b = nothing, nothing, nothing, nothing

    for view in range(num_views):
        image = scene * num_views + view
        pair = image.to(tl.int64) * num_gaussians + n
        visible = inside & (tl.load(counts + pair, inside, 0) > 0)
        row, grad = splats + pair * SPLAT_ROW, pair_grads + pair * GRAD_ROW
        # Of the exponent in base e: -0.5 · offsetᵀ · conic · offset.
        conic_xx = tl.load(row + 2, visible, 0.0) * (-2 / LOG2_E)
        conic_xy = tl.load(row + 3, visible, 0.0) * (-1 / LOG2_E)
        conic_yy = tl.load(row + 4, visible, 0.0) * (-2 / LOG2_E)
        # Offsets are mean - pixel, so d(exponent)/d(mean) = -conic · offset.
        sum_x, sum_y = tl.load(grad, visible, 0.0), tl.load(grad + 1, visible, 0.0)
        d_x = -(conic_xx * sum_x + conic_xy * sum_y)
        d_y = -(conic_xy * sum_x + conic_yy * sum_y)
        d_cxx = -0.5 * tl.load(grad + 2, visible, 0.0)
        d_cxy = -0.5 * tl.load(grad + 3, visible, 0.0)
        d_cyy = -0.5 * tl.load(grad + 4, visible, 0.0)
        g_opacity += tl.load(grad + 5, visible, 0.0)
        g_r += tl.load(grad + 6, visible, 0.0)
        g_g += tl.load(grad + 7, visible, 0.0)
        g_b += tl.load(grad + 8, visible, 0.0)
        d_depth = tl.load(grad + 9, visible, 0.0)

        (r00, r01, r02, t0, r10, r11, r12, t1, r20, r21, r22, t2, fx, fy, cx, cy) = camera(
            c2w, K_norm, image, height, width
        )
        cam_x = r00 * mean_x + r01 * mean_y + r02 * mean_z + t0
        cam_y = r10 * mean_x + r11 * mean_y + r12 * mean_z + t1
        cam_z = tl.where(visible, r20 * mean_x + r21 * mean_y + r22 * mean_z + t2, 1.0)
        divisor, slant = perspective(is_orthographic, image, cam_z, ORTHOGRAPHIC)
        slope_x, slope_y = cam_x / divisor, cam_y / divisor
        low_x, high_x = bend_limits(fx, cx, width)
        low_y, high_y = bend_limits(fy, cy, height)
        bent_x = tl.minimum(tl.maximum(slope_x, low_x), high_x)
        bent_y = tl.minimum(tl.maximum(slope_y, low_y), high_y)
        if ORTHOGRAPHIC:
            bent_x, bent_y = bent_x * slant, bent_y * slant
        scale_x, scale_y = fx / divisor, fy / divisor
        ex0, ex1, ex2 = r00 - bent_x * r20, r01 - bent_x * r21, r02 - bent_x * r22
        ey0, ey1, ey2 = r10 - bent_y * r20, r11 - bent_y * r21, r12 - bent_y * r22
        jx0, jx1, jx2 = scale_x * ex0, scale_x * ex1, scale_x * ex2
        jy0, jy1, jy2 = scale_y * ey0, scale_y * ey1, scale_y * ey2
        ux, uy = jx0 * a00 + jx1 * a10 + jx2 * a20, jy0 * a00 + jy1 * a10 + jy2 * a20
        vx, vy = jx0 * a01 + jx1 * a11 + jx2 * a21, jy0 * a01 + jy1 * a11 + jy2 * a21
        wx, wy = jx0 * a02 + jx1 * a12 + jx2 * a22, jy0 * a02 + jy1 * a12 + jy2 * a22

        # Through the inverse: dcov = -conic · dconic · conic.
        h0, h1 = conic_xx * d_cxx + conic_xy * d_cxy, conic_xx * d_cxy + conic_xy * d_cyy
        h2, h3 = conic_xy * d_cxx + conic_yy * d_cxy, conic_xy * d_cxy + conic_yy * d_cyy
        d_xx = -(h0 * conic_xx + h1 * conic_xy)
        d_xy = -(h0 * conic_xy + h1 * conic_yy) - (h2 * conic_xx + h3 * conic_xy)
        d_yy = -(h2 * conic_xy + h3 * conic_yy)
        d_ux, d_uy = 2 * d_xx * ux + d_xy * uy, 2 * d_yy * uy + d_xy * ux
        d_vx, d_vy = 2 * d_xx * vx + d_xy * vy, 2 * d_yy * vy + d_xy * vx
        d_wx, d_wy = 2 * d_xx * wx + d_xy * wy, 2 * d_yy * wy + d_xy * wx

        g00 += d_ux * jx0 + d_uy * jy0
        g10 += d_ux * jx1 + d_uy * jy1
        g20 += d_ux * jx2 + d_uy * jy2
        g01 += d_vx * jx0 + d_vy * jy0
        g11 += d_vx * jx1 + d_vy * jy1
        g21 += d_vx * jx2 + d_vy * jy2
        g02 += d_wx * jx0 + d_wy * jy0
        g12 += d_wx * jx1 + d_wy * jy1
        g22 += d_wx * jx2 + d_wy * jy2

        d_jx0 = d_ux * a00 + d_vx * a01 + d_wx * a02
        d_jx1 = d_ux * a10 + d_vx * a11 + d_wx * a12
        d_jx2 = d_ux * a20 + d_vx * a21 + d_wx * a22
        d_jy0 = d_uy * a00 + d_vy * a01 + d_wy * a02
        d_jy1 = d_uy * a10 + d_vy * a11 + d_wy * a12
        d_jy2 = d_uy * a20 + d_vy * a21 + d_wy * a22
        d_bent_x = -scale_x * (d_jx0 * r20 + d_jx1 * r21 + d_jx2 * r22)
        d_bent_y = -scale_y * (d_jy0 * r20 + d_jy1 * r21 + d_jy2 * r22)
        if ORTHOGRAPHIC:
            d_bent_x, d_bent_y = d_bent_x * slant, d_bent_y * slant
        d_scale_x = d_jx0 * ex0 + d_jx1 * ex1 + d_jx2 * ex2
        d_scale_y = d_jy0 * ey0 + d_jy1 * ey1 + d_jy2 * ey2
        # The clamp of a bent ray passes no gradient outside of its limits.
        d_slope_x = fx * d_x + tl.where((slope_x >= low_x) & (slope_x <= high_x), d_bent_x, 0.0)
        d_slope_y = fy * d_y + tl.where((slope_y >= low_y) & (slope_y <= high_y), d_bent_y, 0.0)
        d_cam_x, d_cam_y = d_slope_x / divisor, d_slope_y / divisor
        # Of slope = cam / z and scale = f / z: both have derivative -value / z.
        d_divisor = (
            d_scale_x * scale_x + d_scale_y * scale_y + d_slope_x * slope_x + d_slope_y * slope_y
        ) / divisor
        if ORTHOGRAPHIC:
            d_divisor *= slant
        d_cam_z = d_depth - d_divisor
        g_mx += d_cam_x * r00 + d_cam_y * r10 + d_cam_z * r20
        g_my += d_cam_x * r01 + d_cam_y * r11 + d_cam_z * r21
        g_mz += d_cam_x * r02 + d_cam_y * r12 + d_cam_z * r22

    tl.store(grad_means + rows * 3, g_mx, inside)
    tl.store(grad_means + rows * 3 + 1, g_my, inside)
    tl.store(grad_means + rows * 3 + 2, g_mz, inside)
    tl.store(grad_scales + rows * 3, g00 * q00 + g10 * q10 + g20 * q20, inside)
    tl.store(grad_scales + rows * 3 + 1, g01 * q01 + g11 * q11 + g21 * q21, inside)
    tl.store(grad_scales + rows * 3 + 2, g02 * q02 + g12 * q12 + g22 * q22, inside)
    # From here on of the rotation's entries.
    g00, g10, g20 = g00 * s0, g10 * s0, g20 * s0
    g01, g11, g21 = g01 * s1, g11 * s1, g21 * s1
    g02, g12, g22 = g02 * s2, g12 * s2, g22 * s2
    # The rotation matrix is quadratic in the quaternion: derivatives of its nine entries.
    d_w = 2 * (z * (g10 - g01) + y * (g02 - g20) + x * (g21 - g12))
    d_qx = 2 * (y * (g10 + g01) + z * (g20 + g02) + w * (g21 - g12)) - 4 * x * (g11 + g22)
    d_qy = 2 * (x * (g10 + g01) + z * (g21 + g12) + w * (g02 - g20)) - 4 * y * (g00 + g22)
    d_qz = 2 * (x * (g20 + g02) + y * (g21 + g12) + w * (g10 - g01)) - 4 * z * (g00 + g11)
    tl.store(grad_quats + rows * 4, d_w, inside)
    tl.store(grad_quats + rows * 4 + 1, d_qx, inside)
    tl.store(grad_quats + rows * 4 + 2, d_qy, inside)
    tl.store(grad_quats + rows * 4 + 3, d_qz, inside)
    opacity = tl.maximum(tl.load(opacities + rows, inside, 1.0), MIN_ALPHA)  # alphas of less are 0
    tl.store(grad_opacities + rows, g_opacity / opacity, inside)
    tl.store(grad_colors + rows * 3, g_r, inside)
    tl.store(grad_colors + rows * 3 + 1, g_g, inside)
    tl.store(grad_colors + rows * 3 + 2, g_b, inside)
