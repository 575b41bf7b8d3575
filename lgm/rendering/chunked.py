"""Rendering in chunks of images, where all images at once would not fit into memory."""

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
    """The renderings by `draw` from cameras [B, V], at most `at_once` images per call.

    gaussians: of B scenes. background: [3] or [B, V, 3].
    Each chunk is rendered under activation checkpointing: the backward pass renders it again, so that the
    lists of one chunk only are held at a time.
    """
    num_scenes, num_views = cameras.shape
    if num_scenes * num_views <= at_once:
        return draw(gaussians, cameras, background)

    def row(scenes: slice) -> Iterator[Images]:
        for first in range(0, num_views, at_once):
            chunk = scenes, slice(first, first + at_once)
            behind = background if background.ndim == 1 else background[chunk]
            part = gaussians[scenes], cameras[chunk], behind
            # Drawing uses no random numbers, so no RNG state has to be saved and restored.
            yield checkpoint(draw, *part, use_reentrant=False, preserve_rng_state=False)

    # Whole scenes together where several fit, else one scene at a time, cut along its views.
    step = max(1, at_once // num_views)
    rows = [_side_by_side(row(slice(first, first + step)), 1) for first in range(0, num_scenes, step)]
    return _side_by_side(rows, 0)


def _side_by_side(images: Iterator[Images] | list[Images], axis: int) -> Images:
    return tuple(torch.cat(kind, dim=axis) for kind in zip(*images, strict=True))
