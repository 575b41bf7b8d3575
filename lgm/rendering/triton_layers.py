"""Tile binning for the Triton kernels: sorted lists of splats, in one layer or several behind each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

_BLOCK = 128
COMPACT_FROM = 1 << 20  # pairs from which on hidden ones are left out before the sort, not sorted to the end


@dataclass(frozen=True)
class Grid:
    """The tiles of I images: rows × columns of 16 × 16 pixels each. num_gaussians: per scene."""

    images: int
    rows: int
    columns: int
    num_gaussians: int

    @property
    def num_tiles(self) -> int:
        """Tiles of all images together."""
        return self.images * self.rows * self.columns


@dataclass(frozen=True)
class Boxes:
    """Where each of P pairs of an image and a Gaussian may be seen.

    tiles_x, tiles_y: first tile, and one past the last in the upper 16 bits. seen: one bit per tile of that
    rectangle, row by row; all set where it has more than 64 tiles. These three are None where nothing is
    binned again. counts: tiles that are seen. depth_keys: the depth's bits, to sort by.
    """

    tiles_x: Int[Tensor, " P"] | None
    tiles_y: Int[Tensor, " P"] | None
    seen: Int[Tensor, " P"] | None
    counts: Int[Tensor, " P"]
    depth_keys: Int[Tensor, " P"]


@dataclass(frozen=True)
class Layer:
    """A range of the depth order that is blended in one kernel launch.

    order: pairs, front to back. ends, counts: of the slots in which each wrote its intersections.
    alive: the tiles in which the pairs were binned; None in the first layer, which goes everywhere.
    pairs: of each intersection, by tile and then front to back; slots: where it was written.
    starts: of each tile's range in `pairs`, and the end of the last. These three are None in a layer
        that is only remembered, to be binned again in the backward pass.
    room: number of intersections. is_first, is_last: whether nothing lies before or behind it.
    """

    order: Int[Tensor, " K"]
    ends: Int[Tensor, " K"]
    counts: Int[Tensor, " K"]
    alive: UInt8[Tensor, " T"] | None
    pairs: Int[Tensor, " M"] | None
    slots: Int[Tensor, " M"] | None
    starts: Int[Tensor, " S"] | None
    room: int
    is_first: bool
    is_last: bool

    def remembered(self) -> Layer:
        """The same without its intersections, of which all layers together may have thousands of millions."""
        # Blending the next layer overwrites the tiles that are alive.
        alive = None if self.alive is None else self.alive.clone()
        return replace(self, alive=alive, pairs=None, slots=None, starts=None)

    def binned(self, boxes: Boxes, grid: Grid) -> Layer:
        """The same with its intersections, binned again where they were dropped."""
        return self if self.pairs is not None else _bin(boxes, grid, self)


def layers(
    boxes: Boxes, grid: Grid, alive: UInt8[Tensor, " tiles"], max_intersections: int
) -> Iterator[Layer]:
    """Bin all pairs in one layer where that is at most `max_intersections`, else in several, nearest first.

    From the second layer on, pairs are binned only into tiles that are still `alive` (uint8 per tile), which
    the blending kernel updates between layers. What covers everything thus costs little more than what is
    seen of it. One layer waits for the device once, several wait once or twice each.
    """
    if len(boxes.counts) >= COMPACT_FROM:
        visible = boxes.counts.nonzero().squeeze(1)
        # Before the sort is queued, behind which this number would be waited for.
        total = int(boxes.counts.sum())
        order, counts, ends = _by_depth(boxes, visible)
    else:
        order, counts, ends = _by_depth(boxes)
        # The wait for the device: the lists are allocated at their exact length.
        total = int(ends[-1]) if len(ends) else 0
    if total <= max_intersections:
        # Hidden pairs sort to the end and have counts of 0: they write nothing.
        visible = len(order) if total else 0
        lists = (x[:visible] for x in (order, ends, counts))
        yield _bin(boxes, grid, Layer(*lists, None, None, None, None, total, is_first=True, is_last=True))  # type: ignore[call-arg, misc]
        return
    steps = torch.arange(1, total // max_intersections + 2, device=ends.device) * max_intersections
    # A pair alone never exceeds a layer: it touches at most the tiles of one image.
    cuts = sorted({0, *torch.searchsorted(ends, steps, right=True).tolist()})
    for begin, end in pairwise(cuts):
        is_first, part = begin == 0, order[begin:end]
        # Counted again: tiles have become opaque since the projection.
        part_counts = counts[begin:end] if is_first else _count(boxes, grid, alive, part)
        part_ends = part_counts.cumsum(0, dtype=torch.int64)
        where = None if is_first else alive
        room = int(part_ends[-1])
        layer = Layer(part, part_ends, part_counts, where, None, None, None, room, is_first, end == cuts[-1])
        yield _bin(boxes, grid, layer)


def _by_depth(boxes: Boxes, visible: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs front to back, equal depths by their number; their counts, and the ends of their slots.

    visible: the numbers of those that are sorted, in ascending order; None sorts all.
    """
    # Over all images together: blending within a tile needs only the order of its own image's pairs.
    if visible is None:
        order = torch.sort(boxes.depth_keys, stable=True).indices
    else:
        order = visible[torch.sort(boxes.depth_keys[visible], stable=True).indices]
    counts = boxes.counts[order]
    return order, counts, counts.cumsum(0, dtype=torch.int64)


def _count(boxes: Boxes, grid: Grid, alive: Tensor, order: Tensor) -> Tensor:
    """For each pair of `order` [K], the seen tiles that are still alive, int32 [K]."""
    from lgm.rendering.triton_kernels.binning import count_kernel

    counts = torch.empty(len(order), dtype=torch.int32, device=order.device)
    size = (len(order), grid.num_gaussians, grid.rows, grid.columns)
    count_kernel[_programs(len(order))](
        order, boxes.tiles_x, boxes.tiles_y, boxes.seen, alive, counts, *size, BLOCK=_BLOCK
    )
    return counts


def single_layer(boxes: Boxes, grid: Grid, room: int) -> tuple[Layer, Int[Tensor, ""]]:
    """All pairs in one layer without waiting for the device, and how many intersections there are.

    room: the number of intersections that the lists hold. Where there are more, the farthest are missing.
    A CUDA graph captures this variant, since its launches may not depend on values of the device.
    """
    order, counts, ends = _by_depth(boxes)
    layer = Layer(order, ends, counts, None, None, None, None, room, is_first=True, is_last=True)
    total = ends[-1] if len(ends) else torch.zeros((), dtype=torch.int64, device=ends.device)
    return _bin(boxes, grid, layer, is_full=False), total


def _bin(boxes: Boxes, grid: Grid, layer: Layer, is_full: bool = True) -> Layer:
    """is_full: whether there are exactly as many intersections as there is room for."""
    from lgm.rendering.triton_kernels.binning import emit_kernel

    order, device = layer.order, layer.order.device
    # A radix sort's time is proportional to the key's bits: 16 where the tile numbers fit, from -2¹⁵ on.
    dtype, first_key = (torch.int16, -(1 << 15)) if grid.num_tiles < 1 << 16 else (torch.int32, 0)
    keys = torch.empty(layer.room, dtype=dtype, device=device)
    pairs = torch.empty(layer.room, dtype=torch.int32, device=device)
    if not is_full:
        keys.fill_(grid.num_tiles + first_key)  # behind all tiles
        pairs.zero_()
    if layer.room:
        emit_kernel[_programs(len(order))](
            order, boxes.tiles_x, boxes.tiles_y, boxes.seen,
            boxes.tiles_x if layer.alive is None else layer.alive,  # read where there is one
            layer.ends, layer.counts, keys, pairs,
            len(order), grid.num_gaussians, grid.rows, grid.columns, layer.room,
            ONLY_ALIVE=layer.alive is not None, FIRST_KEY=first_key, BLOCK=_BLOCK,
        )  # fmt: skip
    # Stable: within a tile, intersections stay front to back, as their pairs wrote them.
    keys, slots = torch.sort(keys, stable=True)
    starts = torch.searchsorted(keys, _keys(grid.num_tiles + 1, first_key, dtype, device))
    return replace(layer, pairs=pairs[slots], slots=slots, starts=starts)


@lru_cache(16)
def _keys(num: int, first: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The sort keys of tiles 0 to num - 1, cached: their searchsorted gives each tile's start."""
    return torch.arange(first, first + num, device=device).to(dtype)


def _programs(num_pairs: int) -> tuple[int]:
    return (max(1, -(-num_pairs // _BLOCK)),)
