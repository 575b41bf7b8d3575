"""Hull views: further inputs of the network, rendered from the visual hull of the real ones.

Four inputs level with an object see neither its top nor its underside, and a Gaussian for each of their
pixels leaves both open. A hull view has an image of the visual hull, coloured by projecting its points into
the inputs, and Gaussians that start on the hull; the network treats it as any other input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import Cameras, nearest_to_origin, orbit_poses, pixel_rays
from lgm.gaussians.activations import Anchors
from lgm.models.visual_hull import Silhouettes, background_colors, enter, look_up

# Colours are looked up this far below the hull: pixels at the edge of a mask mix with the background.
_INSIDE = 0.02


def hull_view_poses(elevations_deg: Sequence[float]) -> Float[Tensor, "D 4 4"]:
    """Camera-to-world, at distance 1, of hull views above (positive) and below the first input."""
    if not all(-90 <= elevation <= 90 for elevation in elevations_deg):
        raise ValueError(f"draft_elevations_deg={list(elevations_deg)} must lie in -90..90")
    return orbit_poses(list(elevations_deg), [0.0] * len(elevations_deg), 1.0)


def hull_view_cameras(cameras: Cameras, poses: Float[Tensor, "D 4 4"]) -> Cameras:
    """[B, D], as far from the origin as the first input and through its lens."""
    radius = cameras.c2w[:, 0, :3, 3].norm(dim=-1)
    c2w = poses.to(cameras.c2w.dtype).repeat(len(radius), 1, 1, 1)
    c2w[..., :3, 3] *= radius[:, None, None]
    return replace(cameras[:, :1].expand(len(radius), len(poses)), c2w=c2w)


@torch.no_grad()
def with_hull_views(
    images: Float[Tensor, "B V 3 H W"],
    cameras: Cameras,
    anchors: Anchors,
    poses: Float[Tensor, "D 4 4"],
    size: tuple[int, int],
    fuse: bool = False,
    alphas: Float[Tensor, "B V 1 H W"] | None = None,
) -> tuple[Float[Tensor, "B V+D 3 H W"], Cameras, Anchors]:
    """Inputs and their anchors, and behind them hull views and theirs, a splat map of `size` a view."""
    seen_from = hull_view_cameras(cameras, poses)
    drawn, points = render_hull_views(images, cameras, seen_from, size, fuse, alphas)
    starts = (rearrange(x, "b d c h w -> b (d h w) c") for x in (points, drawn))
    means, colors = (
        torch.cat(pair, dim=1) for pair in zip((anchors.means, anchors.colors), starts, strict=True)
    )
    larger = F.interpolate(drawn.flatten(0, 1), size=images.shape[-2:], mode="bilinear")
    larger = larger.unflatten(0, drawn.shape[:2]).to(images.dtype)
    both = Cameras.concatenate([cameras, seen_from], dim=1)
    return torch.cat([images, larger], dim=1), both, Anchors(means=means, colors=colors)


@torch.no_grad()
def render_hull_views(
    images: Float[Tensor, "B V 3 H W"],
    cameras: Cameras,
    seen_from: Cameras,
    size: tuple[int, int],
    fuse: bool = False,
    alphas: Float[Tensor, "B V 1 H W"] | None = None,
) -> tuple[Float[Tensor, "B D 3 h w"], Float[Tensor, "B D 3 h w"]]:
    """Images of the hull over the inputs' background (white without alphas), and for each of their pixels
    where its ray enters the hull: the point nearest to the origin where it does not."""
    images = images.float()
    middles = nearest_to_origin(seen_from, *size).flatten(3).float()  # [B, D, 3, h*w]
    directions = pixel_rays(seen_from, *size)[1].flatten(3).float()
    silhouettes = Silhouettes.of(images, cameras, alphas)
    steps, is_hit, lowest = enter(middles, directions, silhouettes, spare_own=False, fuse=fuse)
    is_hit = is_hit & (lowest == 0)
    steps = torch.where(is_hit, steps, 0.0)
    points = middles + steps[:, :, None] * directions
    colors = _colors(points + _INSIDE * directions, images, silhouettes)
    behind = background_colors(images, alphas)[:, None, :, None]
    drawn = torch.where(is_hit[:, :, None], colors, behind)
    return drawn.unflatten(-1, size), points.unflatten(-1, size)


def _colors(
    points: Float[Tensor, "B D 3 N"],
    images: Float[Tensor, "B V 3 H W"],
    silhouettes: Silhouettes,
) -> Float[Tensor, "B D 3 N"]:
    """Means over the views of what they show where the points would be seen, background left out."""
    num_points = points.shape[-1]
    points = rearrange(points, "b d c n -> b 1 c (d n)")  # [B, 1, 3, D*N]
    linear, offset = silhouettes.projections.split([3, 1], dim=-1)
    with torch.autocast(points.device.type, enabled=False):
        x, y, depth = (linear @ points + offset)[..., None, :].unbind(2)  # [B, V, 1, D*N] each
    shown = 1 - silhouettes.background
    with_shown = torch.cat([images * shown, shown], dim=2)  # [B, V, 4, H, W]
    seen = look_up(with_shown, x, y, depth)  # [B*V, 4, 1, D*N]
    total = seen[:, :, 0].unflatten(0, images.shape[:2]).sum(dim=1)  # [B, 4, D*N]
    colors = total[:, :3] / total[:, 3:].clamp_min(1e-3)
    return rearrange(colors, "b c (d n) -> b d c n", n=num_points)
