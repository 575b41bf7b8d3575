"""Rays through pixel centres, and their Plücker coordinates."""

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras.cameras import Cameras


def pixel_rays(
    cameras: Cameras, height: int, width: int
) -> tuple[Float[Tensor, "*batch 3 H W"], Float[Tensor, "*batch 3 H W"]]:
    """Origins and unit directions, in the world, of the ray through the centre of each pixel [*batch, 3, H,
    W].
    """
    # The network asks under autocast, and rays in bf16 miss by a pixel.
    with torch.autocast(cameras.device.type, enabled=False):
        return _pixel_rays(cameras, height, width)


def _pixel_rays(cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    c2w, K_norm = cameras.c2w, cameras.K_norm
    # Pixel centres at half-integers: pixel (0, 0) is centred at (0.5, 0.5).
    u = (torch.arange(width, dtype=c2w.dtype, device=c2w.device) + 0.5) / width
    v = (torch.arange(height, dtype=c2w.dtype, device=c2w.device) + 0.5) / height
    v, u = torch.meshgrid(v, u, indexing="ij")
    # The inverse of an upper triangular matrix by hand: a library's makes the program wait for a GPU.
    focal_x, skew, center_x, focal_y, center_y = (
        K_norm[..., i, j, None, None] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2))
    )
    y = (v - center_y) / focal_y
    x = (u - center_x - skew * y) / focal_x
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-3).flatten(-2)  # [*, 3, H*W]
    directions = c2w[..., :3, :3] @ pixels  # [*, 3, H*W]
    directions = torch.nn.functional.normalize(directions, dim=-2).unflatten(-1, (height, width))
    origins = c2w[..., :3, 3, None, None].expand_as(directions)
    if cameras.is_orthographic is None:
        return origins, directions
    is_parallel = cameras.is_orthographic[..., None, None, None]
    # All along the axis, from the plane through the camera's centre.
    across = c2w[..., :3, :2] @ pixels[..., :2, :]
    starts = origins + across.unflatten(-1, (height, width))
    axes = c2w[..., :3, 2, None, None].expand_as(directions)
    return torch.where(is_parallel, starts, origins), torch.where(is_parallel, axes, directions)


def nearest_to_origin(cameras: Cameras, height: int, width: int) -> Float[Tensor, "*batch 3 H W"]:
    """The point of each pixel's ray that lies nearest to the world's origin."""
    origins, directions = pixel_rays(cameras, height, width)
    along = (origins * directions).sum(dim=-3, keepdim=True)
    return origins - along * directions


def plucker_rays(cameras: Cameras, height: int, width: int) -> Float[Tensor, "*batch 6 H W"]:
    """Plücker coordinates (origin × direction, direction) of each pixel's ray, as LGM takes them."""
    origins, directions = pixel_rays(cameras, height, width)
    moments = torch.linalg.cross(origins, directions, dim=-3)
    return torch.cat([moments, directions], dim=-3)
