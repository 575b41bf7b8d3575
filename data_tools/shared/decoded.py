"""A packed image, decoded once for all checks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lgm.data.schema.decode import MAX_VIEW_SIDE, opened_image

# Silhouettes are compared at this size or a little more: finer ones would cost memory and change nothing.
_SILHOUETTE_SIDE = 128
# Colours are: a coarser grain than textures', so that surfaces found within a pixel can be compared.
_THUMBNAIL_SIDE = 64


class UndecodableImage(ValueError):
    """The message says why."""


@dataclass(frozen=True)
class DecodedImage:
    """mode, size: as stored, (width, height). max_alpha: 0..255, 255 without an alpha.

    silhouette: the alpha [h, w] in 0..1, averaged down to fewer pixels.
    thumbnail: [h, w, 4] uint8, colours times alpha, averaged down to fewer pixels yet.
    """

    mode: str
    size: tuple[int, int]
    max_alpha: int
    silhouette: np.ndarray
    thumbnail: np.ndarray

    @property
    def has_colors(self) -> bool:
        """RGBA; or RGB, which encoders of WebP make of an alpha that is 255 everywhere."""
        return self.mode in ("RGB", "RGBA")


def decode_image(content: bytes) -> DecodedImage:
    """Raises UndecodableImage."""
    with opened_image(content, "image", MAX_VIEW_SIDE, kind=UndecodableImage) as image:
        image.load()
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        small = alpha.reduce(max(1, min(image.size) // _SILHOUETTE_SIDE))
        silhouette = np.asarray(small, dtype=np.float32) / 255
        # Multiplied by alpha here, because reduce() of RGBA divides by it again.
        thumbnail = rgba.convert("RGBa").reduce(max(1, min(image.size) // _THUMBNAIL_SIDE))
        pixels = np.frombuffer(thumbnail.tobytes(), np.uint8).reshape(*thumbnail.size[::-1], 4)
        return DecodedImage(image.mode, image.size, alpha.getextrema()[1], silhouette, pixels)
