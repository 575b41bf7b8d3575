"""A material's picture as every engine takes it: eight bits a channel, and no larger than asked for."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_tools.meshes.images import to_rgba


def texture_pixels(image: Image.Image, max_size: int) -> np.ndarray:
    """[H, W, 4] uint8, sRGB with straight alpha, bottom row first: texture coordinates start at the lower
    left corner, pictures at the upper left one."""
    rgba = to_rgba(image)
    rgba.thumbnail((max_size, max_size), Image.Resampling.BOX)
    return _fill_transparent(np.array(rgba))[::-1]


def _fill_transparent(pixels: np.ndarray) -> np.ndarray:
    """Invisible texels take the visible ones' mean colour; filtering would mix their own into edges."""
    hidden = pixels[..., 3] == 0
    if hidden.any() and not hidden.all():
        pixels[hidden, :3] = pixels[~hidden, :3].mean(axis=0).astype(np.uint8)
    return pixels
