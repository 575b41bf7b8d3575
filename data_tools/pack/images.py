"""Images on their way into a shard: smaller, and encoded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.shared.colors import linear_to_srgb, srgb_to_linear
from lgm.data.schema.decode import MAX_VIEW_SIDE, opened_image
from lgm.errors import Named

# By the 256 values that there are: powers of every pixel took most of the time.
_LINEAR = srgb_to_linear(np.arange(256) / 255)


def downscale(pixels: np.ndarray, resolution: int) -> np.ndarray:
    """RGBA uint8 [H, W, 4], averaged in linear light with colours weighted by alpha."""
    alpha = pixels[..., 3:].astype(np.float64) / 255
    premultiplied = np.concatenate([_LINEAR[pixels[..., :3]] * alpha, alpha], axis=-1)
    channels = [Image.fromarray(premultiplied[..., c].astype(np.float32)) for c in range(4)]
    small = [c.resize((resolution, resolution), Image.Resampling.BOX) for c in channels]
    small = np.stack([np.asarray(c, dtype=np.float64) for c in small], axis=-1)
    alpha = small[..., 3:]
    srgb = linear_to_srgb(small[..., :3] / np.maximum(alpha, 1e-6))
    shown = np.concatenate([np.where(alpha > 0.002, srgb, 0), np.where(alpha > 0.002, alpha, 0)], axis=-1)
    return np.uint8(np.round(shown * 255))


def fill_transparent(pixels: np.ndarray) -> np.ndarray:
    """Give invisible pixels the colours of visible ones nearby (pull-push, Gortler et al. 1996).

    A lossy codec stores colour in blocks; black around an object would darken its outline, and cost
    bytes for an edge that nobody sees.
    """
    alpha = pixels[..., 3:].astype(np.float32) / 255
    color = pixels[..., :3].astype(np.float32) * alpha
    levels = []
    while min(color.shape[:2]) > 1:
        levels.append((color, alpha))
        color, alpha = _half(color), _half(alpha)
    filled = color / np.maximum(alpha, 1e-6)
    for color, alpha in reversed(levels[1:]):
        known = np.minimum(alpha, 1.0)
        filled = color / np.maximum(alpha, 1e-6) * known + _double(filled, color.shape) * (1.0 - known)
    result = pixels.copy()
    if levels:
        # At full size only pixels that hold nothing of their own are wanted.
        hidden = pixels[..., 3] == 0
        result[hidden, :3] = np.clip(_double(filled, pixels.shape)[hidden] + 0.5, 0, 255)
    return result


def _double(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each value four times; an odd last row or column is repeated once more."""
    doubled = values.repeat(2, axis=0).repeat(2, axis=1)
    pad = ((0, shape[0] - doubled.shape[0]), (0, shape[1] - doubled.shape[1]), (0, 0))
    return np.pad(doubled, pad, mode="edge") if any(map(any, pad)) else doubled


def _half(values: np.ndarray) -> np.ndarray:
    """Sums of two by two; an odd last row or column is left out."""
    height, width = values.shape[0] // 2 * 2, values.shape[1] // 2 * 2
    even = values[:height, :width]
    return even.reshape(height // 2, 2, width // 2, 2, -1).sum(axis=(1, 3))


def encode(pixels: np.ndarray, image_format: str, quality: int | None) -> bytes:
    """quality: 1-100 for lossy WebP, None for no loss."""
    held = io.BytesIO()
    if image_format == "png":
        Image.fromarray(pixels).save(held, "PNG", compress_level=6)
    elif quality is None:
        Image.fromarray(pixels).save(held, "WEBP", lossless=True, quality=60, method=4)
    else:
        # exact keeps our colours of invisible pixels; libwebp's own are worse for the outline.
        image = Image.fromarray(fill_transparent(pixels))
        # method 6 would take seventy times as long for half a percent of the bytes.
        image.save(held, "WEBP", quality=quality, method=5, exact=True)
    return held.getvalue()


def read_depth(path: Path, resolution: int | None) -> np.ndarray:
    """uint16 [H, W]; the nearest pixel's where it is made smaller, as between an object and what lies behind
    it there is no depth. Raises ValueError."""
    with opened_image(path, path.name, MAX_VIEW_SIDE, formats=("PNG",), kind=Named) as image:
        depth = np.asarray(image).astype(np.uint16)
    if resolution is None or resolution == len(depth):
        return depth
    nearest = ((np.arange(resolution) + 0.5) * len(depth) / resolution).astype(int)
    return depth[nearest][:, nearest]


def encode_depth(depth: np.ndarray) -> bytes:
    """16-bit PNG."""
    held = io.BytesIO()
    Image.fromarray(depth).save(held, "PNG", compress_level=6)
    return held.getvalue()
