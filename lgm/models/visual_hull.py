"""The visual hull (Laurentini 1994): the space that the masks of all views do not exclude, and where rays
enter it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lgm.cameras import Cameras
from lgm.kernels import fused_enter, kernels_run

# A pixel whose alpha is above this is the object's.
_TRANSPARENT = 0.02
# Without alphas, one whose darkest channel is below this; lossy images are not quite white beside the object.
_WHITE = 0.98
# The stretch of each ray that is searched, about its point nearest to the origin: objects lie within a ball
# of radius 0.6. With normalize=box, corners of the box lie up to 0.87 from the origin, beyond it.
REACH = 0.7
SAMPLES = 64
HALVINGS = 3  # of the distance between two samples, to where a ray enters


@dataclass(frozen=True)
class Silhouettes:
    """Object masks of V views, with the projections that look points up in them.

    background: 1 where a view sees no object. (The mask's complement.)
    projections: from the world to homogeneous coordinates in the image, 0 to 1.
    """

    background: Float[Tensor, "B V 1 H W"]
    projections: Float[Tensor, "B V 3 4"]

    @classmethod
    def of(
        cls,
        images: Float[Tensor, "B V 3 H W"],
        cameras: Cameras,
        alphas: Float[Tensor, "B V 1 H W"] | None = None,
    ) -> Silhouettes:
        """Masks by alpha, of images over any background. Without alphas, and of views that are opaque
        everywhere (photographs without a cut-out), white is background."""
        with torch.autocast(cameras.device.type, enabled=False):
            projections = cameras.to(torch.float32).projections
        background = (images.amin(dim=2, keepdim=True) >= _WHITE).float()
        if alphas is not None:
            masks = (alphas <= _TRANSPARENT).float()
            background = torch.where(masks.amax(dim=(-2, -1), keepdim=True) > 0, masks, background)
        return cls(background, projections)


def background_colors(
    images: Float[Tensor, "B V 3 H W"], alphas: Float[Tensor, "B V 1 H W"] | None
) -> Float[Tensor, "B 3"]:
    """The background's colour behind each object: the mean of its fully transparent pixels; white where all
    are opaque.
    """
    if alphas is None:
        return images.new_ones(len(images), 3)
    clear = (alphas <= 0).to(images.dtype)
    count = clear.sum(dim=(1, 3, 4))  # [B, 1]
    colors = (images * clear).sum(dim=(1, 3, 4)) / count.clamp_min(1)
    return torch.where(count > 0, colors, 1.0)


def enter(
    middles: Float[Tensor, "B R 3 N"],
    directions: Float[Tensor, "B R 3 N"],
    silhouettes: Silhouettes,
    spare_own: bool,
    fuse: bool = False,
) -> tuple[Float[Tensor, "B R N"], Bool[Tensor, "B R N"], Int[Tensor, "B R N"]]:
    """Ray marching into the visual hull.

    Returns the distance along each ray, from its middle, at which the hull begins; whether it does; and how
    many views see background even there.
    spare_own: sets of rays are the views' own, which are judged by the other views alone.
    fuse: by our own kernels where they run.

    Each sample of a ray counts the views that see background there; the first of those with the lowest
    count is taken. So a view whose silhouette is too small or a little off costs precision, not the ray.
    """
    middles, directions = middles.float(), directions.float()  # of cameras in any precision
    along = torch.linspace(-REACH, REACH, SAMPLES, device=middles.device)
    if fuse and kernels_run(middles):
        operands = (middles, directions, silhouettes.background, silhouettes.projections)
        return fused_enter(*operands, along, HALVINGS, spare_own)

    judges = _judges(silhouettes, middles.shape[1], spare_own)

    def excluded(along: Tensor) -> Tensor:
        return sum(_sees_background(middles, directions, along, judge) for judge in judges)

    # min takes the first of equal samples: the entry, not any point inside.
    lowest, first = excluded(along).min(dim=-1)
    outside, inside = along[(first - 1).clamp_min(0)], along[first]
    # Bisection: samples are two pixels of 128² apart, and surfaces would be stairs.
    for _ in range(HALVINGS):
        between = (outside + inside) / 2
        # As deep inside as the sample that was chosen.
        is_inside = excluded(between[:, :, None, :, None])[..., 0] <= lowest
        outside, inside = (
            torch.where(is_inside, outside, between),
            torch.where(is_inside, between, inside),
        )
    # A ray that starts within the hull says that silhouettes reach the images' edges: no hull to enter.
    return inside, first > 0, lowest


def _judges(silhouettes: Silhouettes, num_sets: int, spare_own: bool) -> list[Silhouettes]:
    """One view for each set of rays, in turn."""
    both = (silhouettes.background, silhouettes.projections)
    num_views = both[0].shape[1]
    if spare_own:
        return [Silhouettes(*(x.roll(-shift, 1) for x in both)) for shift in range(1, num_views)]
    return [
        Silhouettes(*(x[:, view : view + 1].expand(-1, num_sets, *x.shape[2:]) for x in both))
        for view in range(num_views)
    ]


def _sees_background(
    middles: Float[Tensor, "B R 3 N"],
    directions: Float[Tensor, "B R 3 N"],
    along: Float[Tensor, "*#rays S"],
    judge: Silhouettes,
) -> Bool[Tensor, "B R N S"]:
    """Whether a view's image has background where points of rays lie; beyond its edge, as at it."""
    # A ray stays straight in an image: each end is projected once, and samples lie between them.
    with torch.autocast(middles.device.type, enabled=False):
        linear, offset = judge.projections.split([3, 1], dim=-1)
        start, step = linear @ middles + offset, linear @ directions
        x, y, depth = (start[..., None] + step[..., None] * along).unbind(2)
    return look_up(judge.background, x, y, depth).view(depth.shape) > 0.5


def look_up(
    images: Float[Tensor, "B V C H W"],
    x: Float[Tensor, "B V N M"],
    y: Float[Tensor, "B V N M"],
    depth: Float[Tensor, "B V N M"],
) -> Float[Tensor, "BV C N M"]:
    """Bilinear look-up at homogeneous coordinates of `Silhouettes`; beyond their edges, as at them."""
    # From the corners at 0 and 1 to those at -1 and 1.
    grid = 2 * torch.stack([x, y], dim=-1) / depth.clamp_min(1e-3)[..., None] - 1
    return F.grid_sample(images.flatten(0, 1), grid.flatten(0, 1), align_corners=False, padding_mode="border")
