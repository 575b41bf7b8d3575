"""Coverage with an atomic depth test, and shading.

Coverage is launched with `enable_fp_fusion=False`: a fused multiply-add rounds the edge functions of the two
faces of an edge differently, and samples on it would fall through.
"""

import triton
import triton.language as tl

FARTHEST = tl.constexpr(0x7FFFFFFFFFFFFFFF)  # the largest int64: above every key


@triton.jit
def _position(vertices, faces, face, k: tl.constexpr, mask):
    """The world position of each face's k-th vertex."""
    vertex = vertices + tl.load(faces + face * 3 + k, mask, 0).to(tl.int64) * 3
    return tl.load(vertex, mask, 0.0), tl.load(vertex + 1, mask, 0.0), tl.load(vertex + 2, mask, 0.0)


@triton.jit
def _project(matrices, image, x, y, z, mask, ROWS: tl.constexpr):
    """X, Y, w and z: X / w and Y / w are in pixels; ROWS of a matrix: 3, where w is z, or 4."""
    m = matrices + image * (4 * ROWS)
    X = tl.load(m, mask, 0.0) * x + tl.load(m + 1, mask, 0.0) * y + tl.load(m + 2, mask, 0.0) * z
    Y = tl.load(m + 4, mask, 0.0) * x + tl.load(m + 5, mask, 0.0) * y + tl.load(m + 6, mask, 0.0) * z
    W = tl.load(m + 8, mask, 0.0) * x + tl.load(m + 9, mask, 0.0) * y + tl.load(m + 10, mask, 0.0) * z
    X, Y, W = X + tl.load(m + 3, mask, 0.0), Y + tl.load(m + 7, mask, 0.0), W + tl.load(m + 11, mask, 0.0)
    Z = W
    if ROWS == 4:
        Z = tl.load(m + 12, mask, 0.0) * x + tl.load(m + 13, mask, 0.0) * y + tl.load(m + 14, mask, 0.0) * z
        Z += tl.load(m + 15, mask, 0.0)
    return X, Y, W, Z


@triton.jit
def _corners(vertices, faces, matrices, face, image, mask, ROWS: tl.constexpr):
    """The projections of each face's three vertices."""
    x, y, z = _position(vertices, faces, face, 0, mask)
    X0, Y0, W0, Z0 = _project(matrices, image, x, y, z, mask, ROWS)
    x, y, z = _position(vertices, faces, face, 1, mask)
    X1, Y1, W1, Z1 = _project(matrices, image, x, y, z, mask, ROWS)
    x, y, z = _position(vertices, faces, face, 2, mask)
    X2, Y2, W2, Z2 = _project(matrices, image, x, y, z, mask, ROWS)
    return X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2


@triton.jit
def _edge_functions(X0, Y0, W0, X1, Y1, W1, X2, Y2, W2, at_x, at_y):
    """See `lgm.rendering.meshes.projection.edge_functions`."""
    u0, v0 = X0 - at_x * W0, Y0 - at_y * W0
    u1, v1 = X1 - at_x * W1, Y1 - at_y * W1
    u2, v2 = X2 - at_x * W2, Y2 - at_y * W2
    return u1 * v2 - u2 * v1, u2 * v0 - u0 * v2, u0 * v1 - u1 * v0


@triton.jit
def _range(a, b, c, margin, size):
    """The first sample along an axis that an interval may hold, and the number of them."""
    low = tl.minimum(tl.minimum(a, b), c) - margin
    high = tl.maximum(tl.maximum(a, b), c) + margin
    # Clamped before they are whole numbers: beyond 2**31 the conversion has no defined result.
    first = tl.minimum(tl.maximum(tl.ceil(low - 0.5), 0.0), size * 1.0).to(tl.int32)
    last = tl.minimum(tl.maximum(tl.floor(high - 0.5), -1.0), size - 1.0).to(tl.int32)
    return first, tl.maximum(last + 1 - first, 0)


@triton.jit
def _box(X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2, mask, height, width, near, margin):
    """Left, top, columns and rows of the samples that each face may cover; see `visibility._boxes`."""
    nearest = tl.minimum(tl.minimum(Z0, Z1), Z2)
    farthest = tl.maximum(tl.maximum(Z0, Z1), Z2)
    total = (X0 + Y0 + Z0) + (X1 + Y1 + Z1) + (X2 + Y2 + Z2)
    seen = mask & (farthest > near) & (tl.abs(total) < float("inf"))  # NaN compares as false
    across = nearest <= near
    d0, d1, d2 = tl.where(across, 1.0, W0), tl.where(across, 1.0, W1), tl.where(across, 1.0, W2)
    left, columns = _range(X0 / d0, X1 / d1, X2 / d2, margin, width)
    top, rows = _range(Y0 / d0, Y1 / d1, Y2 / d2, margin, height)
    # A face that crosses the near plane projects to anywhere: all samples are asked.
    left, columns = tl.where(across, 0, left), tl.where(across, width, columns)
    top, rows = tl.where(across, 0, top), tl.where(across, height, rows)
    return left, top, tl.where(seen, columns, 0), tl.where(seen, rows, 0)


@triton.jit
def _test(X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2, column, row, face, image_keys, width, near, mask):
    """Lower the keys of samples where a face is nearer than what is there."""
    w0, w1, w2 = _edge_functions(
        X0, Y0, W0, X1, Y1, W1, X2, Y2, W2, column.to(tl.float32) + 0.5, row.to(tl.float32) + 0.5
    )
    total = w0 + w1 + w2
    # Both signs: both sides of a face are drawn. Its edges belong to it, and the depth test decides.
    positive = (w0 >= 0) & (w1 >= 0) & (w2 >= 0) & (total > 0)
    negative = (w0 <= 0) & (w1 <= 0) & (w2 <= 0) & (total < 0)
    inside = mask & (positive | negative)
    # Correctly rounded, as PyTorch divides: a tie must be one in both renderers.
    depth = tl.div_rn(w0 * Z0 + w1 * Z1 + w2 * Z2, tl.where(inside, total, 1.0))
    inside = inside & (depth > near) & (depth < float("inf"))
    # Depth in the upper half, where bits of positive floats sort as their values do; the face in the lower,
    # so that of equal depths the first face wins, in whatever order lanes arrive.
    key = (depth.to(tl.int32, bitcast=True).to(tl.int64) << 32) | face.to(tl.int64)
    tl.atomic_min(image_keys + row * width + column, key, inside, sem="relaxed")


@triton.jit(do_not_specialize=["num_faces"])
def cover_kernel(
    vertices, faces, mesh_ids, matrices,
    keys,  # [I, height, width] int64
    queue,  # [V × F] int64: pairs view × F + face of large faces, in any order
    queue_length,  # [1] int32
    num_faces, num_views, height, width, near, margin,
    ROWS: tl.constexpr, MAX_SAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A lane per face and view walks the samples of its box; faces with larger boxes are queued."""
    face = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = face < num_faces
    view = tl.program_id(1)
    image = tl.load(mesh_ids + face, mask, 0) * num_views + view
    X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2 = _corners(
        vertices, faces, matrices, face, image, mask, ROWS
    )
    left, top, columns, rows = _box(
        X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2, mask, height, width, near, margin
    )  # fmt: skip
    count = columns * rows
    large = count > MAX_SAMPLES
    num_large = tl.sum(large.to(tl.int32), 0)
    if num_large > 0:
        # One atomic for the block; each large face then takes its place among the block's own.
        slot = tl.atomic_add(queue_length, num_large, sem="relaxed") + tl.cumsum(large.to(tl.int32), 0) - 1
        tl.store(queue + slot, view.to(tl.int64) * num_faces + face, large)
    count = tl.where(large, 0, count)
    image_keys = keys + image.to(tl.int64) * height * width
    column, row = left, top
    for i in range(tl.max(count, 0)):
        _test(
            X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2, column, row, face,
            image_keys, width, near, i < count,
        )  # fmt: skip
        column += 1
        ended = column >= left + columns
        row += ended.to(tl.int32)
        column = tl.where(ended, left, column)


@triton.jit(do_not_specialize=["num_faces"])
def cover_large_kernel(
    vertices, faces, mesh_ids, matrices, keys, queue, queue_length,
    num_faces, num_views, height, width, near, margin,
    ROWS: tl.constexpr, SLICES: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Programs share the queue, whose length only the device knows; `SLICES` of them share a face."""
    units = tl.load(queue_length) * SLICES
    for unit in range(tl.program_id(0), units, tl.num_programs(0)):
        mask = unit < units
        pair = tl.load(queue + unit // SLICES)
        face, view = (pair % num_faces).to(tl.int32), (pair // num_faces).to(tl.int32)
        image = tl.load(mesh_ids + face) * num_views + view
        X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2 = _corners(
            vertices, faces, matrices, face, image, mask, ROWS
        )
        left, top, columns, rows = _box(
            X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2, mask, height, width, near, margin
        )  # fmt: skip
        image_keys = keys + image.to(tl.int64) * height * width
        for i in range((unit % SLICES) * HIGH, rows, SLICES * HIGH):
            row = i + tl.arange(0, HIGH)[:, None]
            for j in range(0, columns, WIDE):
                column = j + tl.arange(0, WIDE)[None, :]
                inside = (row < rows) & (column < columns)
                _test(
                    X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2, left + column, top + row, face,
                    image_keys, width, near, inside,
                )  # fmt: skip


@triton.jit
def _texture_uv(uvs, uv_faces, face, b0, b1, b2, mask):
    """Interpolated texture coordinates."""
    first = uvs + tl.load(uv_faces + face * 3, mask, 0).to(tl.int64) * 2
    second = uvs + tl.load(uv_faces + face * 3 + 1, mask, 0).to(tl.int64) * 2
    third = uvs + tl.load(uv_faces + face * 3 + 2, mask, 0).to(tl.int64) * 2
    u = tl.load(first, mask, 0.0) * b0 + tl.load(second, mask, 0.0) * b1 + tl.load(third, mask, 0.0) * b2
    v = tl.load(first + 1, mask, 0.0) * b0
    v += tl.load(second + 1, mask, 0.0) * b1
    v += tl.load(third + 1, mask, 0.0) * b2
    return u, v


@triton.jit
def _texel(texture, u, v, size_y, size_x, channel: tl.constexpr, mask):
    """Bilinear look-up; beyond the border its nearest texel."""
    x = tl.minimum(tl.maximum(u * size_x - 0.5, 0.0), size_x - 1.0)
    y = tl.minimum(tl.maximum(v * size_y - 0.5, 0.0), size_y - 1.0)
    left, top = x.to(tl.int32), y.to(tl.int32)  # not negative: rounded down
    right, bottom = tl.minimum(left + 1, size_x - 1), tl.minimum(top + 1, size_y - 1)
    fx, fy = x - left, y - top
    above = tl.load(texture + (top * size_x + left) * 3 + channel, mask, 0.0) * (1.0 - fx)
    above += tl.load(texture + (top * size_x + right) * 3 + channel, mask, 0.0) * fx
    below = tl.load(texture + (bottom * size_x + left) * 3 + channel, mask, 0.0) * (1.0 - fx)
    below += tl.load(texture + (bottom * size_x + right) * 3 + channel, mask, 0.0) * fx
    return above * (1.0 - fy) + below * fy


@triton.jit
def _normal(vertices, faces, face, total, mask):
    """A face's unit normal in the world, of the side that is seen: the edge functions' sign tells which."""
    ax, ay, az = _position(vertices, faces, face, 0, mask)
    bx, by, bz = _position(vertices, faces, face, 1, mask)
    cx, cy, cz = _position(vertices, faces, face, 2, mask)
    bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    nx, ny, nz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    length = tl.sqrt(nx * nx + ny * ny + nz * nz)
    scale = tl.where(length > 0, tl.where(total > 0, -1.0, 1.0) / tl.where(length > 0, length, 1.0), 0.0)
    return nx * scale, ny * scale, nz * scale


@triton.jit
def shade_kernel(
    vertices, faces, uvs, uv_faces, textures, matrices, background,
    keys,  # [I, height × SAMPLES, width × SAMPLES]
    images, alphas, depths, normals, face_ids,  # [I, 3 or 1, height, width]
    background_stride, num_views, height, width, texture_height, texture_width,
    ROWS: tl.constexpr, SAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Colours, alphas, depths and normals, means of SAMPLES² samples; the face of the nearest of them."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < height * width
    row, column = pixel // width, pixel % width
    image = tl.program_id(1)
    texture = textures + (image // num_views).to(tl.int64) * texture_height * texture_width * 3
    image_keys = keys + image.to(tl.int64) * height * width * (SAMPLES * SAMPLES)
    image_of_lane = tl.zeros([BLOCK], tl.int32) + image
    red = tl.zeros([BLOCK], tl.float32)
    green, blue, alpha, depth = red, red, red, red
    nx, ny, nz = red, red, red
    nearest = tl.zeros([BLOCK], tl.int64) + FARTHEST
    for sample in range(SAMPLES * SAMPLES):  # not unrolled: sixteen copies compile for a minute
        i, j = sample // SAMPLES, sample % SAMPLES
        y, x = row * SAMPLES + i, column * SAMPLES + j
        key = tl.load(image_keys + y * (width * SAMPLES) + x, mask, FARTHEST)
        nearest = tl.minimum(nearest, key)
        covered = key != FARTHEST
        face = (key & 0x7FFFFFFF).to(tl.int32)
        face = tl.where(covered, face, 0)
        X0, Y0, W0, Z0, X1, Y1, W1, Z1, X2, Y2, W2, Z2 = _corners(
            vertices, faces, matrices, face, image_of_lane, covered, ROWS
        )
        w0, w1, w2 = _edge_functions(
            X0, Y0, W0, X1, Y1, W1, X2, Y2, W2, x.to(tl.float32) + 0.5, y.to(tl.float32) + 0.5
        )
        total = w0 + w1 + w2
        scale = 1.0 / tl.where(covered, total, 1.0)
        w0, w1, w2 = w0 * scale, w1 * scale, w2 * scale
        u, v = _texture_uv(uvs, uv_faces, face, w0, w1, w2, covered)
        red += _texel(texture, u, v, texture_height, texture_width, 0, covered)
        green += _texel(texture, u, v, texture_height, texture_width, 1, covered)
        blue += _texel(texture, u, v, texture_height, texture_width, 2, covered)
        alpha += covered.to(tl.float32)
        depth += tl.where(covered, w0 * Z0 + w1 * Z1 + w2 * Z2, 0.0)
        mx, my, mz = _normal(vertices, faces, face, total, covered)
        nx += mx
        ny += my
        nz += mz
    share = 1.0 / (SAMPLES * SAMPLES)
    behind = background + image * background_stride
    rest = 1.0 - alpha * share
    num_pixels = height * width
    first = image.to(tl.int64) * num_pixels + pixel
    first_of_three = image.to(tl.int64) * 3 * num_pixels + pixel
    tl.store(images + first_of_three, red * share + tl.load(behind) * rest, mask)
    tl.store(images + first_of_three + num_pixels, green * share + tl.load(behind + 1) * rest, mask)
    tl.store(images + first_of_three + 2 * num_pixels, blue * share + tl.load(behind + 2) * rest, mask)
    tl.store(alphas + first, alpha * share, mask)
    tl.store(depths + first, depth * share, mask)
    tl.store(normals + first_of_three, nx * share, mask)
    tl.store(normals + first_of_three + num_pixels, ny * share, mask)
    tl.store(normals + first_of_three + 2 * num_pixels, nz * share, mask)
    tl.store(face_ids + first, tl.where(nearest == FARTHEST, -1, nearest & 0x7FFFFFFF).to(tl.int64), mask)
