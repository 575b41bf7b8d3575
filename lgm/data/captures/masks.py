"""Masks that lie beside images: white where the object is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lgm.data.schema.decode import IMAGE_FORMATS, MAX_PIXELS, opened_image
from lgm.data.schema.sample import BrokenSample

_SHAPE_TOLERANCE = 0.01


def read_mask(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    """The mask of an image of `size` (width, height), resized where its resolution is another one.

    Its alpha counts where it has one that says anything, else its brightness; of files that hold 0 and 1
    alone, 1 is the object. Raises BrokenSample where it cannot be read or has another shape.
    """
    with opened_image(path, f"{path}, a mask,", max_pixels=MAX_PIXELS, formats=IMAGE_FORMATS) as image:
        rgba = image.convert("RGBA")
    ratio = rgba.width / rgba.height * size[1] / size[0]
    if abs(ratio - 1) > _SHAPE_TOLERANCE:
        raise BrokenSample(
            f"{path} has {rgba.width} × {rgba.height} pixels, its image {size[0]} × {size[1]}; give a mask "
            "of the same shape"
        )
    alpha = rgba.getchannel("A")
    mask = alpha if alpha.getextrema()[0] < 255 else rgba.convert("L")
    if mask.getextrema()[1] == 1:
        mask = mask.point(lambda value: 255 * value)
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(mask)
