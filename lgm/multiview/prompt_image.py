"""The prompt image of a multi-view generator: cut out, centred, over white."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor


def centred_over_white(
    rgba: UInt8[np.ndarray, "H W 4"], size: int, border: float
) -> Float[Tensor, "3 size size"]:
    """The object in the middle of a square, its longer side at 1 - border of it, over white, in 0..1.

    Raises ValueError where no pixel has an alpha.
    """
    rows, columns = (np.flatnonzero((rgba[..., 3] > 0).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError("shows no object: its alpha is 0 everywhere")
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    # A square about the mask's bounding box, as the original's recentring.
    half = max(bottom - top, right - left) / (1 - border) / 2
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    box = (middle_x - half, middle_y - half, middle_x + half, middle_y + half)
    whole = tuple(round(edge) for edge in box)
    # Pillow fills what lies beyond the image with transparent black, and resizes RGBA premultiplied.
    square = Image.fromarray(rgba, "RGBA").crop(whole).resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1).float() / 255
    return pixels[:3] * pixels[3:] + 1 - pixels[3:]
