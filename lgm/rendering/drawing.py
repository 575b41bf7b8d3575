"""Gaussians to images, many at once but no more than fit."""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from lgm.gaussians import Gaussians
from lgm.rendering.base import Renderer
from lgm.types import RenderOutput, Views


def draw(
    renderer: Renderer,
    gaussians: Gaussians,
    views: Views,
    background: Float[Tensor, "B 3"],
    images_per_call: int | None = None,
) -> RenderOutput:
    """Gaussians of B scenes from the cameras of `views` [B, V], at the size of its images.

    images_per_call: the views are drawn in turns of at most so many images (but at least one of
        each scene): the same numbers, but for rounding, in bounded memory. None draws all at once.
    """
    height, width = views.images.shape[-2:]
    num_scenes, num_views = views.cameras.shape
    step = num_views if images_per_call is None else max(1, images_per_call // num_scenes)
    background = repeat(background, "b c -> b v c", v=num_views)
    renders = [
        renderer(gaussians, views.cameras[:, turn], height, width, background=background[:, turn])
        for turn in (slice(start, start + step) for start in range(0, num_views, step))
    ]
    if len(renders) == 1:
        return renders[0]
    return RenderOutput(
        images=torch.cat([render.images for render in renders], dim=1),
        alphas=torch.cat([render.alphas for render in renders], dim=1),
        depths=torch.cat([render.depths for render in renders], dim=1),
    )
