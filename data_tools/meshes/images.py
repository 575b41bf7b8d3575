"""Images of materials, from any kind of file to eight bits a channel."""

from __future__ import annotations

import numpy as np
from PIL import Image

MAX_TEXTURE_SIZE = 2048  # pixels; larger ones are reduced, since views have 512 or so


def to_rgba(image: Image.Image) -> Image.Image:
    """Eight bits a channel, from any mode that Pillow opens.

    Pillow clips 16-bit grey instead of scaling it, and has no way from CMYK, YCbCr or Lab to RGBA. Integers
    range as their mode does, whatever the values: a dark image stays dark.
    """
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.uint8(np.round(np.clip(values / _top(image, values), 0, 1) * 255)))
    elif image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"):
        image = image.convert("RGB")
    elif image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA")


def _top(image: Image.Image, values: np.ndarray) -> float:
    """The value that is white."""
    if image.mode == "F":  # a TIFF of floats: 0 to 1, but for programs that write bytes as floats
        return 1.0 if values.max(initial=0.0) <= 1.0 else 255.0 if values.max() <= 255.0 else 65535.0
    # "I" holds 32 bits; older Pillows open a PNG of 16 in it.
    return 65535.0 if values.max(initial=0) <= 65535 else 2.0**32 - 1
