"""Drawing some images at a time where all at once would not fit."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians

Images = tuple[Tensor, ...]  # each [B, V, …]
Draw = Callable[[Gaussians, Cameras, Tensor], Images]


def draw_in_parts(
    draw: Draw, gaussians: Gaussians, cameras: Cameras, background: Tensor, at_once: int
) -> Images:
    """What `draw` draws from cameras [B, V], at most `at_once` images in a call.

    A part keeps nothing for the way back: there it is drawn again, so that never more than one part's
    lists are held.
    """
    num_scenes, num_views = cameras.shape
    if num_scenes * num_views <= at_once:
        return draw(gaussians, cameras, background)

    def row(scenes: slice) -> Iterator[Images]:
        for first in range(0, num_views, at_once):
            place = scenes, slice(first, first + at_once)
            behind = background if background.ndim == 1 else background[place]
            part = gaussians[scenes], cameras[place], behind
            yield checkpoint(draw, *part, use_reentrant=False, preserve_rng_state=False)

    step = max(1, at_once // num_views)
    rows = [_side_by_side(row(slice(first, first + step)), 1) for first in range(0, num_scenes, step)]
    return _side_by_side(rows, 0)


def _side_by_side(images: Iterator[Images] | list[Images], axis: int) -> Images:
    return tuple(torch.cat(kind, dim=axis) for kind in zip(*images, strict=True))
