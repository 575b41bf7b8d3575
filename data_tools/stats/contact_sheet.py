"""Objects side by side, to be looked at before anyone trains on them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from lgm.errors import shown

_LABEL_HEIGHT = 12
_LABEL_CHARACTERS = 80


def strip(images: list[np.ndarray], views: list[int], side: int) -> Image.Image:
    """Some of an object's views in a row on white. images: RGBA [H, W, 4] in 0..1."""
    row = Image.new("RGB", (len(views) * side, side), "white")
    for column, view in enumerate(views):
        image = Image.fromarray(np.uint8(images[view % len(images)] * 255)).resize((side, side))
        row.paste(image, (column * side, 0), image)
    return row


def contact_sheet(strips: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """(uid, strip) in a grid, each under its uid."""
    width = max(row.width for _, row in strips) + 8
    height = max(row.height for _, row in strips) + _LABEL_HEIGHT
    sheet = Image.new("RGB", (columns * width, -(-len(strips) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (uid, row) in enumerate(strips):
        left, top = number % columns * width, number // columns * height
        draw.text((left + 2, top), shown(uid, _LABEL_CHARACTERS), fill="black")
        sheet.paste(row, (left, top + _LABEL_HEIGHT))
    return sheet


def as_webp(image: Image.Image) -> bytes:
    """A lossy WebP of the image, small enough for a page."""
    held = io.BytesIO()
    image.save(held, "WEBP", quality=80)
    return held.getvalue()
