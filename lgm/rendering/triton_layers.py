"""Which splats are drawn together: binned lists, in one layer or in several behind each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

_BLOCK = 128


@dataclass(frozen=True)
class Grid:
    """The tiles of I pictures."""

    pictures: int
    rows: int
    columns: int
    num_gaussians: int

    @property
    def num_tiles(self) -> int:
        return self.pictures * self.rows * self.columns


@dataclass(frozen=True)
class Boxes:
    """Where each pair of a picture and a Gaussian may be seen: first tile, and one past the last in the
    upper 16 bits; one bit a tile of that rectangle, unless it is a large one; tiles in all; and the
    depth's bits to sort by."""

    tiles_x: Int[Tensor, " P"]
    tiles_y: Int[Tensor, " P"]
    seen: Int[Tensor, " P"]
    counts: Int[Tensor, " P"]
    depth_keys: Int[Tensor, " P"]


@dataclass(frozen=True)
class Layer:
    """order: pairs, front to back; ends, counts: of the slots in which each wrote its intersections.
    pairs: of each intersection, by tile and then front to back; slots: where it was written.
    starts: of each tile's stretch of `pairs`.
    is_first, is_last: whether nothing lies before or behind it."""

    order: Int[Tensor, " K"]
    ends: Int[Tensor, " K"]
    counts: Int[Tensor, " K"]
    pairs: Int[Tensor, " M"]
    slots: Int[Tensor, " M"]
    starts: Int[Tensor, " T"]
    is_first: bool
    is_last: bool


def layers(
    boxes: Boxes, grid: Grid, alive: UInt8[Tensor, " tiles"], max_intersections: int
) -> Iterator[Layer]:
    """Bin all pairs in one layer where that is at most `max_intersections`, else in several, the
    nearest first; from the second on only into tiles that are still `alive`, which whoever draws
    the layers updates in between. What covers everything thus costs little more than what is seen
    of it. One layer takes one wait for the device, several take one or two each."""
    order = torch.sort(boxes.depth_keys).indices
    counts = boxes.counts[order]
    ends = counts.cumsum(0, dtype=torch.int64)
    total = int(ends[-1])
    if total <= max_intersections:
        visible = order if total else order[:0]
        ends, counts = ends[: len(visible)], counts[: len(visible)]
        yield _bin(boxes, grid, alive, visible, ends, counts, total, is_first=True, is_last=True)
        return
    steps = torch.arange(1, total // max_intersections + 2, device=ends.device) * max_intersections
    # A pair alone never exceeds a layer: it touches at most the tiles of one picture.
    cuts = sorted({0, *torch.searchsorted(ends, steps, right=True).tolist()})
    for begin, end in pairwise(cuts):
        is_first, part = begin == 0, order[begin:end]
        part_counts = counts[begin:end] if is_first else _count(boxes, grid, alive, part)
        part_ends = part_counts.cumsum(0, dtype=torch.int64)
        part_total = int(part_ends[-1])
        is_last = end == cuts[-1]
        yield _bin(boxes, grid, alive, part, part_ends, part_counts, part_total, is_first, is_last)


def _count(boxes: Boxes, grid: Grid, alive: Tensor, order: Tensor) -> Tensor:
    from lgm.rendering.triton_kernels.binning import count_kernel

    counts = torch.empty(len(order), dtype=torch.int32, device=order.device)
    size = (len(order), grid.num_gaussians, grid.rows, grid.columns)
    count_kernel[_programs(len(order))](
        order, boxes.tiles_x, boxes.tiles_y, boxes.seen, alive, counts, *size, BLOCK=_BLOCK
    )
    return counts


def single_layer(boxes: Boxes, grid: Grid, room: int) -> tuple[Layer, Int[Tensor, ""]]:
    """All pairs in one layer without waiting for the device, and how many intersections there are.

    room: for so many. Where there are more, the farthest are missing.
    """
    order = torch.sort(boxes.depth_keys).indices
    counts = boxes.counts[order]
    ends = counts.cumsum(0, dtype=torch.int64)
    alive = boxes.tiles_x  # read by no kernel in the first layer
    layer = _bin(boxes, grid, alive, order, ends, counts, room, is_first=True, is_last=True, is_full=False)
    return layer, ends[-1]


def _bin(
    boxes: Boxes,
    grid: Grid,
    alive: Tensor,
    order: Tensor,
    ends: Tensor,
    counts: Tensor,
    room: int,
    is_first: bool,
    is_last: bool,
    is_full: bool = True,
) -> Layer:
    """is_full: whether there are exactly as many intersections as there is room for."""
    from lgm.rendering.triton_kernels.binning import emit_kernel

    # A radix sort's time goes with the bits.
    dtype, first_key = (torch.int16, -(1 << 15)) if grid.num_tiles < 1 << 16 else (torch.int32, 0)
    keys = torch.empty(room, dtype=dtype, device=order.device)
    pairs = torch.empty(room, dtype=torch.int32, device=order.device)
    if not is_full:
        keys.fill_(grid.num_tiles + first_key)  # behind all tiles
        pairs.zero_()
    if room:
        emit_kernel[_programs(len(order))](
            order, boxes.tiles_x, boxes.tiles_y, boxes.seen, alive, ends, counts, keys, pairs,
            len(order), grid.num_gaussians, grid.rows, grid.columns, room,
            ONLY_ALIVE=not is_first, FIRST_KEY=first_key, BLOCK=_BLOCK,
        )  # fmt: skip
    keys, slots = torch.sort(keys, stable=True)
    starts = torch.searchsorted(keys, _keys(grid.num_tiles + 1, first_key, dtype, keys.device))
    return Layer(order, ends, counts, pairs[slots], slots, starts, is_first, is_last)


@cache
def _keys(num: int, first: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(first, first + num, device=device).to(dtype)


def _programs(num_pairs: int) -> tuple[int]:
    return (max(1, -(-num_pairs // _BLOCK)),)
