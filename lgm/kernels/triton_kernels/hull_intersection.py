"""Rays into the visual hull: a program takes a block of the rays of one set, with all their samples."""

import triton
import triton.language as tl


@triton.jit
def _dot(row, x, y, z):
    """Of three numbers in memory with points."""
    return tl.load(row) * x + tl.load(row + 1) * y + tl.load(row + 2) * z


@triton.jit
def _pixel(position, depth, size):
    """Where a homogeneous coordinate of 0 to 1 lies among `size` pixels' middles; beyond the edge, at it."""
    corner = 2.0 * position / depth - 1.0
    return tl.minimum(tl.maximum(((corner + 1.0) * size - 1.0) / 2.0, 0.0), size - 1.0)


@triton.jit
def _excluded(
    mx, my, mz, dx, dy, dz,  # [RAYS, 1]: middles and directions
    along,  # [RAYS, S]
    background, projections, num_views, height, width,
    SPARE_OWN: tl.constexpr,
):  # fmt: skip
    """How many views see background at each place, by bilinear interpolation."""
    count = tl.zeros_like(along).to(tl.int32)
    own_view = tl.program_id(1)
    judges = num_views - 1 if SPARE_OWN else num_views
    for j in range(judges):
        view = (own_view + 1 + j) % num_views if SPARE_OWN else j
        view = tl.program_id(2).to(tl.int64) * num_views + view
        row = projections + view * 12
        # The ray is linear in homogeneous coordinates: both of its parts are projected once.
        x = (_dot(row, mx, my, mz) + tl.load(row + 3)) + _dot(row, dx, dy, dz) * along
        y = (_dot(row + 4, mx, my, mz) + tl.load(row + 7)) + _dot(row + 4, dx, dy, dz) * along
        z = (_dot(row + 8, mx, my, mz) + tl.load(row + 11)) + _dot(row + 8, dx, dy, dz) * along
        # Behind the camera: clamped like the plain version, which ends at the image's edge.
        z = tl.maximum(z, 1e-3)
        x, y = _pixel(x, z, width), _pixel(y, z, height)
        left, top = x.to(tl.int32), y.to(tl.int32)  # not negative: rounded down
        fx, fy = x - left, y - top
        right, bottom = tl.minimum(left + 1, width - 1), tl.minimum(top + 1, height - 1)
        image = background + view * height * width
        above = tl.load(image + top * width + left) * (1.0 - fx) + tl.load(image + top * width + right) * fx
        below = tl.load(image + bottom * width + left) * (1.0 - fx)
        below += tl.load(image + bottom * width + right) * fx
        count += (above * (1.0 - fy) + below * fy > 0.5).to(tl.int32)
    return count


@triton.jit
def enter_kernel(
    middles, directions,  # [B, R, 3, N]
    background,  # [B, V, H, W]
    projections,  # [B, V, 3, 4]
    along,  # [SAMPLES]
    steps, first, lowest,  # [B, R, N]
    num_rays, num_sets, num_views, height, width,
    SPARE_OWN: tl.constexpr, HALVINGS: tl.constexpr, RAYS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """Ray marching and bisection of RAYS rays: the first sample that fewest views exclude, then halvings.

    steps: the distance along each ray. first: the sample's index, 0 where the ray starts inside. lowest: how
    many views see background there.
    """
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    in_range = ray < num_rays
    rays = tl.program_id(2).to(tl.int64) * num_sets + tl.program_id(1)
    offsets = rays * 3 * num_rays + ray
    mx = tl.load(middles + offsets, in_range, 0.0)[:, None]
    my = tl.load(middles + offsets + num_rays, in_range, 0.0)[:, None]
    mz = tl.load(middles + offsets + 2 * num_rays, in_range, 0.0)[:, None]
    dx = tl.load(directions + offsets, in_range, 0.0)[:, None]
    dy = tl.load(directions + offsets + num_rays, in_range, 0.0)[:, None]
    dz = tl.load(directions + offsets + 2 * num_rays, in_range, 0.0)[:, None]

    sample = tl.arange(0, SAMPLES)
    tried = tl.zeros([RAYS, SAMPLES], tl.float32) + tl.load(along + sample)[None, :]
    count = _excluded(
        mx, my, mz, dx, dy, dz, tried, background, projections, num_views, height, width, SPARE_OWN
    )
    # The first of the least: one number that orders by count, then by sample.
    best = tl.min(count * SAMPLES + sample[None, :], axis=1)
    least, entry = best // SAMPLES, best % SAMPLES
    outside = tl.load(along + tl.maximum(entry - 1, 0))[:, None]
    inside = tl.load(along + entry)[:, None]
    for _ in tl.static_range(HALVINGS):
        between = (outside + inside) / 2.0
        count = _excluded(
            mx, my, mz, dx, dy, dz, between, background, projections, num_views, height, width, SPARE_OWN
        )
        enters = count <= least[:, None]
        outside = tl.where(enters, outside, between)
        inside = tl.where(enters, between, inside)
    out = rays * num_rays + ray
    tl.store(steps + out[:, None], inside, in_range[:, None])
    tl.store(first + out, entry, in_range)
    tl.store(lowest + out, least, in_range)
