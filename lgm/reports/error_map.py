"""Where and by how much a prediction is off: absolute error per pixel, in colours."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

LARGEST = 0.5  # errors of this and more have the last colour; black on white is 1
# Nearly equal steps of lightness from white, so that it prints, and so that empty background is no colour.
_COLORS = np.array(
    [(255, 255, 255), (254, 217, 118), (253, 141, 60), (227, 26, 28), (128, 0, 60), (40, 0, 40)], np.float64
)


def error_map(prediction: Image.Image, target: Image.Image) -> Image.Image:
    """Mean absolute error of the three channels of each pixel, from white (0) over yellow and red to near
    black (`LARGEST`)."""
    one, other = (np.asarray(image, np.float64) / 255 for image in (prediction, target))
    return Image.fromarray(_colored(np.abs(one - other).mean(axis=-1) / LARGEST), "RGB")


def _colored(x: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """Colours of values of 0..1, linear between the anchors."""
    anchors = np.linspace(0, 1, len(_COLORS))
    channels = [np.interp(x, anchors, _COLORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def css_gradient() -> str:
    """The colours as a CSS gradient, for a legend."""
    return "linear-gradient(to right, " + ", ".join(f"rgb({r:g} {g:g} {b:g})" for r, g, b in _COLORS) + ")"
