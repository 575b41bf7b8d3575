"""Anchors: where the Gaussians of a splat map start, at their pixels' colours and on their pixels' rays."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import Cameras, nearest_to_origin, pixel_rays
from lgm.gaussians.activations import Anchors
from lgm.models.visual_hull import Silhouettes, enter

AnchorKind = Literal["none", "pixels", "hull"]
ANCHOR_KINDS = ("none", "pixels", "hull")


@torch.no_grad()
def pixel_anchors(
    images: Float[Tensor, "B V 3 H W"],
    cameras: Cameras,
    size: tuple[int, int],
    kind: AnchorKind,
    fuse: bool = False,
    alphas: Float[Tensor, "B V 1 H W"] | None = None,
) -> Anchors | None:
    """For a splat map of `size`, height and width, pixels a view; None for kind "none".

    Raises ValueError for images whose pixels do not divide among those of the splat map.

    Colours are the images'. Positions are, for kind "pixels", the point of each ray nearest to the
    origin; for "hull", where the ray enters the visual hull: the first point that the other views'
    masks do not exclude: those of `alphas` or, without, of images over white. Pixels of background, and of
    images over another background without alphas, are as of "pixels".
    """
    if kind == "none":
        return None
    height, width = size
    if not height or not width or images.shape[-2] % height or images.shape[-1] % width:
        raise ValueError(
            f"images of {images.shape[-2]} × {images.shape[-1]} do not divide into a splat map of "
            f"{height} × {width}"
        )
    num_views, factors = images.shape[1], (images.shape[-2] // height, images.shape[-1] // width)
    images = images.float()
    # The splat map may be smaller than the image: a Gaussian starts at the mean colour of its pixels.
    colors = F.avg_pool2d(rearrange(images, "b v c h w -> (b v) c h w"), factors)  # [BV, 3, h, w]
    means = nearest_to_origin(cameras, height, width)
    if kind == "hull":
        means = _entries(images, cameras, means, fuse, alphas)
    return Anchors(
        means=rearrange(means, "b v c h w -> b (v h w) c"),
        colors=rearrange(colors, "(b v) c h w -> b (v h w) c", v=num_views),
    )


def _entries(
    images: Float[Tensor, "B V 3 H W"],
    cameras: Cameras,
    middles: Float[Tensor, "B V 3 h w"],
    fuse: bool,
    alphas: Float[Tensor, "B V 1 H W"] | None,
) -> Float[Tensor, "B V 3 h w"]:
    """Where each pixel's ray enters the visual hull of all views."""
    height, width = middles.shape[-2:]
    if images.shape[1] == 1:  # a single view excludes nothing
        return middles
    silhouettes = Silhouettes.of(images, cameras, alphas)
    _, directions = pixel_rays(cameras, height, width)
    middles, directions = middles.flatten(3), directions.flatten(3)  # [B, V, 3, h*w]
    # Only the other views can exclude points of a ray: in its own view all of them are one pixel.
    steps, is_hit, _ = enter(middles, directions, silhouettes, spare_own=True, fuse=fuse)
    # 1 where a pixel of the map is all background: its ray has no point on the object.
    background_fraction = F.adaptive_avg_pool2d(
        silhouettes.background.flatten(0, 1), (height, width)
    ).view_as(steps)
    # Of a pixel that an object covers in part, that part is seen.
    steps = torch.where((background_fraction < 0.99) & is_hit, steps, 0.0)
    return (middles + steps[:, :, None] * directions).unflatten(-1, (height, width))
