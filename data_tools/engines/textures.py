"""A material's image as every engine takes it: eight bits a channel, and no larger than asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from data_tools.meshes.images import to_rgba
from data_tools.meshes.surfaces import Sampler

_ROUNDING = 1e-3  # of coordinates that are meant to be 0 or 1


def texture_pixels(image: Image.Image, max_size: int) -> np.ndarray:
    """[H, W, 4] uint8, sRGB with straight alpha, bottom row first: texture coordinates start at the lower
    left corner, images at the upper left one."""
    rgba = to_rgba(image)
    rgba.thumbnail((max_size, max_size), Image.Resampling.BOX)
    return _fill_transparent(np.array(rgba))[::-1]


def within_its_edges(sampler: Sampler, uv: np.ndarray) -> Sampler:
    """Without repetition along an axis whose coordinates [..., 2] never leave 0..1: filtering would mix the
    opposite edge's colours into an edge, as a thin line around each side of a box."""
    low, high = uv.reshape(-1, 2).min(axis=0), uv.reshape(-1, 2).max(axis=0)
    stays = (low >= -_ROUNDING) & (high <= 1 + _ROUNDING)
    wraps = [
        "clamp" if inside else wrap
        for inside, wrap in zip(stays, (sampler.wrap_u, sampler.wrap_v), strict=True)
    ]
    return replace(sampler, wrap_u=wraps[0], wrap_v=wraps[1])


def _fill_transparent(pixels: np.ndarray) -> np.ndarray:
    """Invisible texels take the visible ones' mean colour; filtering would mix their own into edges."""
    hidden = pixels[..., 3] == 0
    if hidden.any() and not hidden.all():
        pixels[hidden, :3] = pixels[~hidden, :3].mean(axis=0).astype(np.uint8)
    return pixels
