"""Where the Gaussians of a splat map start: at their pixels' colours, and on their pixels' rays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lgm.cameras import Cameras, nearest_to_origin, pixel_rays
from lgm.gaussians.activations import Anchors

AnchorKind = Literal["none", "pixels", "hull"]
ANCHOR_KINDS = ("none", "pixels", "hull")

# A pixel whose darkest channel is below this is the object's; lossy pictures are not quite white beside it.
_WHITE = 0.98
# The stretch of each ray that is searched, about its point nearest to the origin: objects lie within a ball
# of radius 0.6. With normalize=box, corners of the box lie up to 0.87 from the origin, beyond it.
REACH = 0.7
SAMPLES = 64
HALVINGS = 3  # of the distance between two samples, to where a ray enters


@torch.no_grad()
def pixel_anchors(
    images: Float[Tensor, "B V 3 H W"], cameras: Cameras, size: tuple[int, int], kind: AnchorKind
) -> Anchors | None:
    """For a splat map of `size`, height and width, pixels a view; None for kind "none".

    Raises ValueError for pictures whose pixels do not divide among those of the splat map.

    Colours are the pictures'. Positions are, for kind "pixels", the point of each ray nearest to the
    origin; for "hull", where the ray enters the visual hull: the first point that the other views'
    silhouettes do not exclude. Pixels of background, and of pictures that are not over white, are as of
    "pixels".
    """
    if kind == "none":
        return None
    height, width = size
    if not height or not width or images.shape[-2] % height or images.shape[-1] % width:
        raise ValueError(
            f"pictures of {images.shape[-2]} × {images.shape[-1]} do not divide into a splat map of "
            f"{height} × {width}"
        )
    num_views, factors = images.shape[1], (images.shape[-2] // height, images.shape[-1] // width)
    images = images.float()
    colors = F.avg_pool2d(rearrange(images, "b v c h w -> (b v) c h w"), factors)
    means = nearest_to_origin(cameras, height, width)
    if kind == "hull":
        means = _entries(images, cameras, means)
    return Anchors(
        means=rearrange(means, "b v c h w -> b (v h w) c"),
        colors=rearrange(colors, "(b v) c h w -> b (v h w) c", v=num_views),
    )


def _entries(
    images: Float[Tensor, "B V 3 H W"], cameras: Cameras, middles: Float[Tensor, "B V 3 h w"]
) -> Float[Tensor, "B V 3 h w"]:
    """Where each pixel's ray enters the visual hull of all views.

    Each sample of a ray counts the views that see background there; the first of those with the lowest
    count is taken. So a view whose silhouette is too small or a little off costs precision, not the ray.
    """
    height, width = middles.shape[-2:]
    if images.shape[1] == 1:  # a single view excludes nothing
        return middles
    background, projections = background_of(images), projections_of(cameras, middles.dtype)
    _, directions = pixel_rays(cameras, height, width)
    middles, directions = middles.flatten(3), directions.flatten(3)  # [B, V, 3, h*w]

    def excluded(along: Tensor) -> Tensor:
        return sum(
            sees_background(
                middles, directions, along, background.roll(-shift, 1), projections.roll(-shift, 1)
            )
            for shift in range(1, images.shape[1])
        )

    steps, is_hit, _ = enter(excluded, images.device)
    own = F.adaptive_avg_pool2d(background.flatten(0, 1), (height, width)).view_as(steps)
    # Of a pixel that an object covers in part, that part is seen.
    steps = torch.where((own < 0.99) & is_hit, steps, 0.0)
    return (middles + steps[:, :, None] * directions).unflatten(-1, (height, width))


def enter(
    excluded: Callable[[Tensor], Int[Tensor, "B V N S"]], device: torch.device
) -> tuple[Float[Tensor, "B V N"], Bool[Tensor, "B V N"], Int[Tensor, "B V N"]]:
    """How far along each ray, from its middle, the hull begins; whether it does; and how many views
    see background even there.

    excluded: of places along the rays, [S] for all or [B, V, 1, N, S], how many views see background.
    """
    along = torch.linspace(-REACH, REACH, SAMPLES, device=device)
    lowest, first = excluded(along).min(dim=-1)
    outside, inside = along[(first - 1).clamp_min(0)], along[first]
    # Samples are two pixels of 128² apart: surfaces would be stairs.
    for _ in range(HALVINGS):
        between = (outside + inside) / 2
        is_inside = excluded(between[:, :, None, :, None])[..., 0] <= lowest
        outside, inside = (
            torch.where(is_inside, outside, between),
            torch.where(is_inside, between, inside),
        )
    # A ray that starts within the hull says that silhouettes reach the pictures' edges: no hull to enter.
    return inside, first > 0, lowest


def background_of(images: Float[Tensor, "B V 3 H W"]) -> Float[Tensor, "B V 1 H W"]:
    """1 where a picture shows white."""
    return (images.amin(dim=2, keepdim=True) >= _WHITE).float()


def projections_of(cameras: Cameras, dtype: torch.dtype) -> Float[Tensor, "B V 3 4"]:
    """From the world to homogeneous coordinates in the picture, 0 to 1."""
    with torch.autocast(cameras.device.type, enabled=False):
        return cameras.K_norm.to(dtype) @ cameras.w2c[..., :3, :].to(dtype)


def sees_background(
    middles: Float[Tensor, "B V 3 N"],
    directions: Float[Tensor, "B V 3 N"],
    along: Float[Tensor, "*#rays S"],
    background: Float[Tensor, "B V 1 H W"],
    projections: Float[Tensor, "B V 3 4"],
) -> Bool[Tensor, "B V N S"]:
    """Whether a view's picture has background where points of rays lie; beyond its edge, as at it."""
    # A ray stays straight in a picture: each end is projected once, and samples lie between them.
    with torch.autocast(middles.device.type, enabled=False):
        linear, offset = projections.split([3, 1], dim=-1)
        start, step = linear @ middles + offset, linear @ directions
        x, y, depth = (start[..., None] + step[..., None] * along).unbind(2)
    return look_up(background, x, y, depth).view(depth.shape) > 0.5


def look_up(
    pictures: Float[Tensor, "B V C H W"],
    x: Float[Tensor, "B V N M"],
    y: Float[Tensor, "B V N M"],
    depth: Float[Tensor, "B V N M"],
) -> Float[Tensor, "BV C N M"]:
    """What pictures show at homogeneous coordinates of `projections_of`; beyond their edges, as at them."""
    # From the corners at 0 and 1 to those at -1 and 1.
    grid = 2 * torch.stack([x, y], dim=-1) / depth.clamp_min(1e-3)[..., None] - 1
    return F.grid_sample(
        pictures.flatten(0, 1), grid.flatten(0, 1), align_corners=False, padding_mode="border"
    )
