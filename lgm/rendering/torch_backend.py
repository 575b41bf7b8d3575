"""The reference renderer: plain PyTorch, tiled, on any device, in float32 or float64."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering.base import Backend
from lgm.rendering.blending import blend
from lgm.rendering.projection import Splats, project
from lgm.rendering.tiles import MIN_ALPHA, TileLists, list_splats
from lgm.types import RenderOutput

# Pixel-splat pairs in flight. On a CPU a block should stay in its cache, on a GPU fill the chip.
_MAX_PAIRS = {"cpu": 1 << 18}
_MAX_PAIRS_ELSEWHERE = 1 << 24


class TorchRenderer(Backend):
    """EWA splatting in plain PyTorch, with the published rasterizer's cuts, at 16 × 16-pixel tiles.

    tile_size: pixels along a side of the tiles that work is cut into; changes speed only. By
        default 8, or 16 where the splats are large.
    max_pairs: how many pixel-splat pairs are evaluated at a time, which bounds the memory: about
        32 bytes a pair. By default, as suits the device.
    Raises ValueError for another tile_size than 4, 8, 16 or None, and for max_pairs below 1.
    """

    label = "torch"

    def __init__(self, tile_size: int | None = None, max_pairs: int | None = None) -> None:
        if tile_size not in (None, 4, 8, 16):
            raise ValueError(f"tile_size={tile_size} must be 4, 8 or 16, or null to choose by the splats")
        if max_pairs is not None and max_pairs < 1:
            raise ValueError(f"max_pairs={max_pairs} must be at least 1, or null for the device's default")
        self.tile_size = tile_size
        self.max_pairs = max_pairs

    def _dtype(self, gaussians: Gaussians) -> torch.dtype:
        return torch.float64 if gaussians.means.dtype == torch.float64 else torch.float32

    def _draw(
        self, gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor
    ) -> RenderOutput:
        max_pairs = self.max_pairs or _MAX_PAIRS.get(gaussians.means.device.type, _MAX_PAIRS_ELSEWHERE)
        cameras = cameras.to(gaussians.means.dtype)
        splats = project(gaussians, cameras, height, width)
        lists = list_splats(splats, gaussians.opacities[:, None], height, width, self.tile_size)
        tiles = blend(_rows(splats, gaussians), lists, max_pairs)
        return _compose(tiles, lists, cameras.shape[1], (height, width), background)


def _rows(splats: Splats, gaussians: Gaussians) -> Float[Tensor, "M 10"]:
    """The ten columns of `blending.blend`, one row per pair of a view and a Gaussian."""
    shape = splats.x.shape
    # Fainter Gaussians are listed nowhere; the logarithm only has to be finite.
    log_opacities = gaussians.opacities.clamp_min(MIN_ALPHA).log()
    shared = [x[:, None].expand(shape) for x in (log_opacities, *gaussians.colors.unbind(-1))]
    conics = [splats.conic_xx, splats.conic_xy, splats.conic_yy]
    rows = torch.stack([splats.x, splats.y, *conics, *shared, splats.depths], dim=-1)  # [B, V, N, 10]
    return rearrange(rows, "b v n row -> (b v n) row")


def _compose(
    tiles: Tensor, lists: TileLists, num_views: int, size: tuple[int, int], background: Tensor
) -> RenderOutput:
    """Tiles to images, over the background."""
    drawn = rearrange(
        tiles,
        "(b v row col) c (y x) -> b v c (row y) (col x)",
        v=num_views,
        row=lists.rows,
        col=lists.columns,
        y=lists.tile_size,
        # Tiles at the right and lower border reach beyond the image.
    )[..., : size[0], : size[1]]  # [B, V, 5, H, W]
    colors, depths, alphas = drawn.split([3, 1, 1], dim=2)
    # Colours are premultiplied by alpha, as blending leaves them.
    images = colors + (1 - alphas) * background[..., None, None]
    return RenderOutput(images=images, alphas=alphas.contiguous(), depths=depths.contiguous())
