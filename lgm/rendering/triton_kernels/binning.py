"""Tile binning: lists of the splats that each tile blends, front to back.

Pairs are sorted by depth once, for all images together; they then write their intersections one
after the other, and a stable sort by tile alone keeps that order within each tile.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_pairs"])
def count_kernel(
    order,  # [K] int64: pairs, front to back
    tiles_x, tiles_y, seen,  # [P] int32, [P] int32, [P] int64
    alive,  # [I × rows × columns] uint8: tiles that still let light through
    counts,  # [K] int32: of alive tiles that each touches
    num_pairs, num_gaussians, rows, columns,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Count the alive tiles that each pair touches: the length of its range of intersections."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < num_pairs
    pair = tl.load(order + k, inside, 0)
    first, width, area = _rectangle(tiles_x, tiles_y, pair, inside, num_gaussians, rows, columns)
    bits = tl.load(seen + pair, inside, 0)
    count = tl.zeros([BLOCK], tl.int32)
    # A lane per pair walks its rectangle; the block runs as long as its largest rectangle.
    for i in range(tl.max(area, 0)):
        touched = (i < area) & _is_seen(bits, area, i)
        tile = first + (i // width) * columns + i % width
        count += tl.load(alive + tile, touched, 0).to(tl.int32)
    tl.store(counts + k, count, inside)


@triton.jit(do_not_specialize=["num_pairs", "room"])
def emit_kernel(
    order, tiles_x, tiles_y, seen, alive,
    ends,  # [K] int64: of each pair's intersections
    counts,  # [K] int32
    keys, pairs,  # [M]: tile plus FIRST_KEY, and pair, of each intersection
    num_pairs, num_gaussians, rows, columns, room,
    ONLY_ALIVE: tl.constexpr, FIRST_KEY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the tile's key and the pair of every intersection, each pair into its own range of slots.

    Intersections beyond `room` (the length M of the lists) are left out: the farthest, as pairs are in depth
    order.
    """
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < num_pairs
    count = tl.load(counts + k, inside, 0)
    inside = inside & (count > 0)  # of the hidden ones, which are most of them, nothing else is read
    pair = tl.load(order + k, inside, 0)
    first, width, area = _rectangle(tiles_x, tiles_y, pair, inside, num_gaussians, rows, columns)
    bits = tl.load(seen + pair, inside, 0)
    # Ranges from a cumulative sum, not from an atomic counter: the order is the same each time.
    slot = tl.load(ends + k, inside, 0) - count
    for i in range(tl.max(area, 0)):
        touched = (i < area) & _is_seen(bits, area, i)
        tile = first + (i // width) * columns + i % width
        if ONLY_ALIVE:
            touched = touched & (tl.load(alive + tile, touched, 0) > 0)
        has_room = touched & (slot < room)
        tl.store(keys + slot, (tile + FIRST_KEY).to(keys.dtype.element_ty), has_room)
        tl.store(pairs + slot, pair.to(tl.int32), has_room)
        slot += touched.to(tl.int64)


@triton.jit
def _rectangle(tiles_x, tiles_y, pair, inside, num_gaussians, rows, columns):
    """The first tile that a pair may touch, and the width and area of the rectangle of them."""
    x, y = tl.load(tiles_x + pair, inside, 0), tl.load(tiles_y + pair, inside, 0)
    # First tile in the lower 16 bits, one past the last in the upper ones.
    left, right, top, bottom = x & 0xFFFF, x >> 16, y & 0xFFFF, y >> 16
    image = (pair // num_gaussians).to(tl.int32)
    first = (image * rows + top) * columns + left
    width = tl.maximum(right - left, 1)
    return first, width, tl.where(inside, (right - left) * (bottom - top), 0)


@triton.jit
def _is_seen(bits, area, i):
    """Whether the rectangle's i-th tile is seen; of large rectangles all are."""
    return (area > 64) | (((bits >> (i & 63)) & 1) > 0)
