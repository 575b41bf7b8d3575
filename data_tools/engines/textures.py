"""A material's picture as every engine takes it: eight bits a channel, and no larger than asked for."""

from __future__ import annotations

import numpy as np
from PIL import Image


def texture_pixels(image: Image.Image, max_size: int) -> np.ndarray:
    """[H, W, 4] uint8, sRGB with straight alpha, bottom row first: texture coordinates start at the lower
    left corner, pictures at the upper left one."""
    rgba = _to_rgba(image)
    rgba.thumbnail((max_size, max_size), Image.Resampling.BOX)
    return _fill_transparent(np.array(rgba))[::-1]


def _to_rgba(image: Image.Image) -> Image.Image:
    """Eight bits a channel; Pillow would clip 16-bit grey instead of scaling it."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        image = Image.fromarray(np.uint8(np.clip(values / top, 0, 1) * 255))
    return image.convert("RGBA")


def _fill_transparent(pixels: np.ndarray) -> np.ndarray:
    """Invisible texels take the visible ones' mean colour; filtering would mix their own into edges."""
    hidden = pixels[..., 3] == 0
    if hidden.any() and not hidden.all():
        pixels[hidden, :3] = pixels[~hidden, :3].mean(axis=0).astype(np.uint8)
    return pixels
