"""Rendering the views of a batch, in chunks of bounded memory."""

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
    """Render Gaussians of B scenes from the cameras of `views` [B, V], at the size of its images.

    background: rgb in 0..1, one per scene [B, 3].
    images_per_call: the views are rendered in chunks of at most so many images (but at least one per
        scene): the same numbers, except for rounding, in bounded memory. None renders all at once.
    Returns images [B, V, 3, H, W], alphas and depths [B, V, 1, H, W].
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
