"""Tile binning: which splats each tile of each image has to blend, front to back.

The images are cut into small tiles. A splat is listed in a tile only where it can matter: inside
the box around the ellipse on which its alpha falls to 1/255, and inside the 16 × 16-pixel tiles
that a square of three standard deviations touches (the published rasterizer draws no further, and
shows it where that square cuts an opaque splat at 1e-2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lgm.rendering.projection import Splats

# The published rasterizer's: fainter contributions are skipped, one step of 8 bits.
MIN_ALPHA = 1 / 255
REFERENCE_TILE = 16  # pixels a side, of the published rasterizer
SMALL_TILE, LARGE_TILE = 8, 16
# Where a splat touches more small tiles than this on average, listing them costs more than the
# large tiles' idle pixels.
_MANY_TILES = 32
# Binning holds about 60 bytes an intersection for a moment, the lists only 4 for good.
_INTERSECTIONS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class TileLists:
    """Each tile's splats, front to back, all tiles one after the other.

    splat_ids: rows of the flattened [B, V, N] splats, by tile and then front to back.
    starts, counts: each tile's range in `splat_ids`; tiles run over images, rows, columns.
    rows, columns: tiles of an image. tile_size: pixels a side.
    """

    splat_ids: Int[Tensor, " I"]
    starts: Int[Tensor, " tiles"]
    counts: Int[Tensor, " tiles"]
    rows: int
    columns: int
    tile_size: int


@dataclass(frozen=True)
class _Boxes:
    """Visible splats, image by image, and the tiles that each may touch."""

    ids: Tensor  # [K] rows of the flattened splats
    first_tile: Tensor  # [K] upper left tile of the rectangle, counted over all images
    width: Tensor
    area: Tensor  # [K] tiles of the rectangle: intersections that it may have
    depth_keys: Tensor
    tile_size: int
    rows: int
    columns: int


@torch.no_grad()
def list_splats(
    splats: Splats, opacities: Tensor, height: int, width: int, tile_size: int | None
) -> TileLists:
    """Cut the images into tiles and list each tile's splats; opacities [B, 1, N].

    tile_size: pixels a side; None takes small tiles, or large ones where the splats are large.
    Without gradients: the lists are integers, and blending differentiates the splats themselves.
    """
    boxes = _tile_boxes(splats, opacities, height, width, tile_size or SMALL_TILE)
    if tile_size is None and int(boxes.area.sum()) > _MANY_TILES * boxes.ids.numel():
        boxes = _tile_boxes(splats, opacities, height, width, LARGE_TILE)
    tile_size, rows, columns = boxes.tile_size, boxes.rows, boxes.columns
    num_images = splats.x.shape[0] * splats.x.shape[1]
    empty = boxes.ids.new_empty(0, dtype=torch.int32)
    ids, keys = [empty], [empty]
    for group in _groups(boxes, splats.x.shape[-1]):
        group_ids, group_keys = _sorted_intersections(boxes, group)
        ids.append(group_ids)
        keys.append(group_keys)
    # Groups are whole images in order, so that the concatenated keys are sorted.
    counts = torch.bincount(torch.cat(keys), minlength=num_images * rows * columns)
    return TileLists(torch.cat(ids), counts.cumsum(0) - counts, counts, rows, columns, tile_size)


def _tile_boxes(splats: Splats, opacities: Tensor, height: int, width: int, tile_size: int) -> _Boxes:
    rows, columns = math.ceil(height / tile_size), math.ceil(width / tile_size)
    radii = splats.radii
    # alpha > 1/255 inside  offsetᵀ · conic · offset < reach²
    reach = (2 * (255 * opacities).log()).clamp_min(0).sqrt()
    left, right = _tile_range(splats.x, reach * splats.cov_xx.sqrt(), radii, width, tile_size)
    top, bottom = _tile_range(splats.y, reach * splats.cov_yy.sqrt(), radii, height, tile_size)
    visible = splats.in_front & (opacities >= MIN_ALPHA) & (right > left) & (bottom > top)

    ids = visible.flatten().nonzero()[:, 0]
    left, right, top, bottom = (edge.flatten()[ids].long() for edge in (left, right, top, bottom))
    image = ids // splats.x.shape[-1]
    return _Boxes(
        ids=ids,
        first_tile=(image * rows + top) * columns + left,
        width=right - left,
        area=(right - left) * (bottom - top),
        # Positive floats sort as their bits do, and integers sort by radix: several times faster.
        depth_keys=_bits(splats.depths.flatten()[ids]),
        tile_size=tile_size,
        rows=rows,
        columns=columns,
    )


def _tile_range(
    center: Tensor, extent: Tensor, radii: Tensor, size: int, tile_size: int
) -> tuple[Tensor, Tensor]:
    """First tile, and one past the last, along one axis (still floats)."""
    slack = 1e-3 + 1e-5 * extent  # rounding must not lose what lies just inside the threshold
    first = ((center - extent - slack - (tile_size - 1)) / tile_size).ceil()
    last = ((center + extent + slack) / tile_size).floor() + 1
    # The published cut is at its own 16-pixel tiles, whatever the size of these.
    ratio = REFERENCE_TILE // tile_size
    cut_first = ((center - radii) / REFERENCE_TILE).floor() * ratio
    cut_last = ((center + radii + REFERENCE_TILE - 1) / REFERENCE_TILE).floor() * ratio
    num_tiles = math.ceil(size / tile_size)
    first = torch.maximum(first, cut_first).clamp(0, num_tiles)
    return first, torch.minimum(last, cut_last).clamp(0, num_tiles)


def _groups(boxes: _Boxes, splats_per_image: int) -> Iterator[slice]:
    """Stretches of whole images with a bounded number of intersections."""
    if not boxes.ids.numel():
        return
    _, visible = torch.unique_consecutive(boxes.ids // splats_per_image, return_counts=True)
    ends = visible.cumsum(0)
    intersections = boxes.area.cumsum(0)[ends - 1].tolist()
    begin, done = 0, 0
    for i, end in enumerate(ends.tolist()):
        is_last = i + 1 == len(intersections)
        # A group closes before the image that would exceed the bound; one image alone may exceed it.
        if is_last or intersections[i + 1] - done > _INTERSECTIONS_AT_ONCE:
            yield slice(begin, end)
            begin, done = end, intersections[i]


def _sorted_intersections(boxes: _Boxes, group: slice) -> tuple[Tensor, Tensor]:
    """Splat and tile of every intersection, by tile, then depth, then the splat's number."""
    # Sorted by depth first and then, stably, by tile: two cheap sorts instead of one with 64-bit keys.
    order = torch.sort(boxes.depth_keys[group], stable=True).indices
    ids, first_tile, width, area = (
        field[group][order] for field in (boxes.ids, boxes.first_tile, boxes.width, boxes.area)
    )
    ends = area.cumsum(0)
    owner = torch.repeat_interleave(area, output_size=int(ends[-1]))  # which splat each intersection is of
    within = torch.arange(owner.numel(), device=owner.device) - (ends - area)[owner]
    row = within // width[owner]
    tile = first_tile[owner] + row * boxes.columns + within - row * width[owner]
    tile, order = torch.sort(tile.int(), stable=True)
    return ids.int()[owner[order]], tile


def _bits(positive: Tensor) -> Tensor:
    """The bit patterns of positive floats as integers, which have the same order."""
    return positive.view(torch.int64 if positive.dtype == torch.float64 else torch.int32)
