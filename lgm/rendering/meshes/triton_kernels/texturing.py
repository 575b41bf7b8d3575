"""Premultiplied colours of textured faces, and their gradients by vertices and texture.

One launch each, where autograd makes hundreds and waits for the number of covered samples. Gradients are
added up by atomics, in any order.
"""

import triton
import triton.language as tl

from lgm.rendering.meshes.triton_kernels.rasterization import (
    FARTHEST,
    _corners,
    _edge_functions,
    _texel,
    _texture_uv,
)


@triton.jit
def texture_kernel(
    vertices, faces, uvs, uv_faces, textures, matrices,
    keys,  # [I, height, width]
    colors,  # [I, height, width, 4]
    num_views, height, width, texture_height, texture_width,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As of `shading.premultiplied`."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < height * width
    image = tl.program_id(1)
    texture = textures + (image // num_views).to(tl.int64) * texture_height * texture_width * 3
    pixel_id = image.to(tl.int64) * height * width + pixel
    key = tl.load(keys + pixel_id, mask, FARTHEST)
    covered = key != FARTHEST
    face = tl.where(covered, key & 0x7FFFFFFF, 0).to(tl.int32)
    image_of_lane = tl.zeros([BLOCK], tl.int32) + image
    X0, Y0, W0, _, X1, Y1, W1, _, X2, Y2, W2, _ = _corners(
        vertices, faces, matrices, face, image_of_lane, covered, ROWS
    )
    at_x, at_y = (pixel % width).to(tl.float32) + 0.5, (pixel // width).to(tl.float32) + 0.5
    w0, w1, w2 = _edge_functions(X0, Y0, W0, X1, Y1, W1, X2, Y2, W2, at_x, at_y)
    scale = 1.0 / tl.where(covered, w0 + w1 + w2, 1.0)
    u, v = _texture_uv(uvs, uv_faces, face, w0 * scale, w1 * scale, w2 * scale, covered)
    out = colors + pixel_id * 4
    tl.store(out, _texel(texture, u, v, texture_height, texture_width, 0, covered), mask)
    tl.store(out + 1, _texel(texture, u, v, texture_height, texture_width, 1, covered), mask)
    tl.store(out + 2, _texel(texture, u, v, texture_height, texture_width, 2, covered), mask)
    tl.store(out + 3, covered.to(tl.float32), mask)


@triton.jit
def _texel_gradient(
    texture, grad_texture, top_left, top_right, bottom_left, bottom_right, fx, fy, grad,
    channel: tl.constexpr, mask,
):  # fmt: skip
    """Adds a colour's gradient to four texels; returns it by the position in the texture, in texels."""
    a, b = tl.load(texture + top_left + channel, mask, 0.0), tl.load(texture + top_right + channel, mask, 0.0)
    c = tl.load(texture + bottom_left + channel, mask, 0.0)
    d = tl.load(texture + bottom_right + channel, mask, 0.0)
    tl.atomic_add(grad_texture + top_left + channel, grad * (1.0 - fx) * (1.0 - fy), mask, sem="relaxed")
    tl.atomic_add(grad_texture + top_right + channel, grad * fx * (1.0 - fy), mask, sem="relaxed")
    tl.atomic_add(grad_texture + bottom_left + channel, grad * (1.0 - fx) * fy, mask, sem="relaxed")
    tl.atomic_add(grad_texture + bottom_right + channel, grad * fx * fy, mask, sem="relaxed")
    return grad * ((b - a) * (1.0 - fy) + (d - c) * fy), grad * ((c - a) * (1.0 - fx) + (d - b) * fx)


@triton.jit
def _add_to_vertex(
    grad_vertices, faces, matrices, face, image, grad_u, grad_v, at_x, at_y, k: tl.constexpr, mask
):
    """Gradients by a corner's u = X - at_x w and v = Y - at_y w, to its vertex in the world."""
    grad_w = -at_x * grad_u - at_y * grad_v
    m = matrices + image
    vertex = grad_vertices + tl.load(faces + face * 3 + k, mask, 0).to(tl.int64) * 3
    x = grad_u * tl.load(m) + grad_v * tl.load(m + 4) + grad_w * tl.load(m + 8)
    y = grad_u * tl.load(m + 1) + grad_v * tl.load(m + 5) + grad_w * tl.load(m + 9)
    z = grad_u * tl.load(m + 2) + grad_v * tl.load(m + 6) + grad_w * tl.load(m + 10)
    tl.atomic_add(vertex, x, mask, sem="relaxed")
    tl.atomic_add(vertex + 1, y, mask, sem="relaxed")
    tl.atomic_add(vertex + 2, z, mask, sem="relaxed")


@triton.jit
def _corner_uv(uvs, uv_faces, face, k: tl.constexpr, mask):
    first = uvs + tl.load(uv_faces + face * 3 + k, mask, 0).to(tl.int64) * 2
    return tl.load(first, mask, 0.0), tl.load(first + 1, mask, 0.0)


@triton.jit
def texture_backward_kernel(
    vertices, faces, uvs, uv_faces, textures, matrices,
    keys,  # [I, height, width]
    grad_colors,  # [I, height, width, 4], of which the last has no effect: coverage is constant here
    grad_vertices, grad_textures,  # zero at first
    num_views, height, width, texture_height, texture_width,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of `texture_kernel`: through the bilinear look-up, barycentrics and edge functions."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < height * width
    image = tl.program_id(1)
    first_texel = (image // num_views).to(tl.int64) * texture_height * texture_width * 3
    pixel_id = image.to(tl.int64) * height * width + pixel
    key = tl.load(keys + pixel_id, mask, FARTHEST)
    covered = key != FARTHEST
    face = tl.where(covered, key & 0x7FFFFFFF, 0).to(tl.int32)
    image_of_lane = tl.zeros([BLOCK], tl.int32) + image
    X0, Y0, W0, _, X1, Y1, W1, _, X2, Y2, W2, _ = _corners(
        vertices, faces, matrices, face, image_of_lane, covered, ROWS
    )
    at_x, at_y = (pixel % width).to(tl.float32) + 0.5, (pixel // width).to(tl.float32) + 0.5
    u0, v0 = X0 - at_x * W0, Y0 - at_y * W0
    u1, v1 = X1 - at_x * W1, Y1 - at_y * W1
    u2, v2 = X2 - at_x * W2, Y2 - at_y * W2
    b0, b1, b2 = u1 * v2 - u2 * v1, u2 * v0 - u0 * v2, u0 * v1 - u1 * v0
    scale = 1.0 / tl.where(covered, b0 + b1 + b2, 1.0)
    b0, b1, b2 = b0 * scale, b1 * scale, b2 * scale

    s0, t0 = _corner_uv(uvs, uv_faces, face, 0, covered)
    s1, t1 = _corner_uv(uvs, uv_faces, face, 1, covered)
    s2, t2 = _corner_uv(uvs, uv_faces, face, 2, covered)
    free_x = (s0 * b0 + s1 * b1 + s2 * b2) * texture_width - 0.5
    free_y = (t0 * b0 + t1 * b1 + t2 * b2) * texture_height - 0.5
    x = tl.minimum(tl.maximum(free_x, 0.0), texture_width - 1.0)
    y = tl.minimum(tl.maximum(free_y, 0.0), texture_height - 1.0)
    left, top = x.to(tl.int32), y.to(tl.int32)
    right, bottom = tl.minimum(left + 1, texture_width - 1), tl.minimum(top + 1, texture_height - 1)
    fx, fy = x - left, y - top
    top_left, top_right = (top * texture_width + left) * 3, (top * texture_width + right) * 3
    bottom_left, bottom_right = (bottom * texture_width + left) * 3, (bottom * texture_width + right) * 3
    texture, grad_texture = textures + first_texel, grad_textures + first_texel
    grad = grad_colors + pixel_id * 4
    red_x, red_y = _texel_gradient(
        texture, grad_texture, top_left, top_right, bottom_left, bottom_right, fx, fy,
        tl.load(grad, covered, 0.0), 0, covered,
    )  # fmt: skip
    green_x, green_y = _texel_gradient(
        texture, grad_texture, top_left, top_right, bottom_left, bottom_right, fx, fy,
        tl.load(grad + 1, covered, 0.0), 1, covered,
    )  # fmt: skip
    blue_x, blue_y = _texel_gradient(
        texture, grad_texture, top_left, top_right, bottom_left, bottom_right, fx, fy,
        tl.load(grad + 2, covered, 0.0), 2, covered,
    )  # fmt: skip
    # Beyond the border the nearest texel is all there is: no gradient by the position.
    grad_s = tl.where(free_x == x, red_x + green_x + blue_x, 0.0) * texture_width
    grad_t = tl.where(free_y == y, red_y + green_y + blue_y, 0.0) * texture_height
    g0, g1, g2 = grad_s * s0 + grad_t * t0, grad_s * s1 + grad_t * t1, grad_s * s2 + grad_t * t2
    mean = g0 * b0 + g1 * b1 + g2 * b2
    g0, g1, g2 = (g0 - mean) * scale, (g1 - mean) * scale, (g2 - mean) * scale
    m = image * (4 * ROWS)
    _add_to_vertex(
        grad_vertices, faces, matrices, face, m, g2 * v1 - g1 * v2, g1 * u2 - g2 * u1, at_x, at_y, 0, covered
    )
    _add_to_vertex(
        grad_vertices, faces, matrices, face, m, g0 * v2 - g2 * v0, g2 * u0 - g0 * u2, at_x, at_y, 1, covered
    )
    _add_to_vertex(
        grad_vertices, faces, matrices, face, m, g1 * v0 - g0 * v1, g0 * u1 - g1 * u0, at_x, at_y, 2, covered
    )
