"""From tensors to images that a person looks at."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from lgm.cameras import Cameras

LINE = (208, 208, 208)
TEXT = (64, 64, 64)
HEADING = 18  # pixels


def to_bytes(images: Float[Tensor, "V C H W"]) -> UInt8[np.ndarray, "V H W 3"]:
    """Images of 3 channels or 1, in 0..1, as 8-bit RGB on the host, in one transfer."""
    x = images.detach().float().nan_to_num().clamp(0, 1).expand(-1, 3, -1, -1)
    return rearrange((x * 255).round().byte(), "v c h w -> v h w c").contiguous().cpu().numpy()


def to_image(image: Float[Tensor, "C H W"]) -> Image.Image:
    """One image of 3 channels or 1, in 0..1, as 8-bit RGB."""
    return Image.fromarray(to_bytes(image[None])[0], "RGB")


def resized(image: Image.Image, size: int) -> Image.Image:
    """The image with its longer side `size`."""
    factor = size / max(image.size)
    if factor == 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def spread_views(cameras: Cameras, count: int) -> list[int]:
    """Indices of up to `count` cameras [V] that see the object from all sides.

    The one most behind and the one most above come first, as that is where a network that only
    copies its front view fails; then, each time, the one farthest from all that were taken.
    """
    directions = F.normalize(cameras.centers.detach().float().cpu(), dim=-1)  # [V, 3]
    taken = list(dict.fromkeys([int(directions[:, 2].argmin()), int(directions[:, 1].argmax())]))[:count]
    while len(taken) < min(count, len(directions)):
        closeness = (directions @ directions[taken].T).max(dim=-1).values
        closeness[taken] = torch.inf
        taken.append(int(closeness.argmin()))
    return sorted(taken)


def mosaic(images: Sequence[Image.Image], columns: int | None = None, border: int = 1) -> Image.Image:
    """Images of one size in rows, as square as it gets, with thin lines between and around."""
    columns = columns or ceil(sqrt(len(images)))
    width, height = images[0].size
    rows = ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + border) + border, rows * (height + border) + border), LINE)
    for index in range(rows * columns):
        corner = (
            border + index % columns * (width + border),
            border + index // columns * (height + border),
        )
        cell = images[index] if index < len(images) else Image.new("RGB", (width, height), "white")
        sheet.paste(cell, corner)
    return sheet


def table(rows: Sequence[Sequence[Image.Image]], headings: Sequence[str], gap: int = 8) -> Image.Image:
    """Rows of images under headings; each column is as wide as its widest image."""
    widths = [max(image.width for image in column) for column in zip(*rows, strict=True)]
    heights = [max(image.height for image in row) for row in rows]
    size = (sum(widths) + gap * (len(widths) + 1), HEADING + sum(heights) + gap * (len(heights) + 1))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    lefts = np.cumsum([gap, *(width + gap for width in widths)])
    tops = np.cumsum([HEADING + gap, *(height + gap for height in heights)])
    for left, heading in zip(lefts, headings, strict=False):
        draw.text((int(left), gap // 2 + 2), heading, fill=TEXT)
    for top, row in zip(tops, rows, strict=False):
        for left, image in zip(lefts, row, strict=False):
            sheet.paste(image, (int(left), int(top)))
    return sheet
