"""One image, seen through another lens from the same place."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image

from lgm.cameras.lens import Lens


def reimage(
    rgba: UInt8[np.ndarray, "H W 4"],
    lens: Lens,
    rotation: Float[np.ndarray, "3 3"],
    target: Lens,
) -> UInt8[np.ndarray, "h w 4"]:
    """The image of a camera with the lens `target` where that of `rgba` stood. No depth comes into it: a
    camera that only turns, and changes its lens, sees the same rays. Beyond the image's edge nothing
    is known and alpha is 0.

    rotation: from the target camera's axes to those of the image's own, OpenCV's both.
    """
    rgba = reduced(rgba, max(target.focal_x / lens.focal_x, target.focal_y / lens.focal_y))
    lens = lens.resized(rgba.shape[1], rgba.shape[0])
    # A pixel's centre lies half a pixel from its corner.
    rows, columns = np.mgrid[: target.height, : target.width] + 0.5
    rays = target.directions(np.stack([columns, rows], axis=-1)) @ rotation.T
    pixels, seen = lens.project(rays)
    positions = pixels / (lens.width, lens.height)
    positions[~seen] = 2.0  # outside
    return resampled(rgba, positions)


def resampled(
    rgba: UInt8[np.ndarray, "H W 4"], positions: Float[np.ndarray, "h w 2"]
) -> UInt8[np.ndarray, "h w 4"]:
    """The image at places of its own, 0 to 1 along each side; beyond its edge nothing, with an alpha of 0."""
    # grid_sample's places, from -1 to 1 between the outer edges of the pixels (align_corners=False).
    grid = torch.from_numpy(positions * 2 - 1)
    # Premultiplied: colours of transparent pixels mean nothing and must not bleed into the outline.
    alpha = rgba[..., 3:].astype(np.float64) / 255
    premultiplied = np.concatenate([rgba[..., :3] * alpha, rgba[..., 3:]], axis=-1)
    source = torch.from_numpy(premultiplied).permute(2, 0, 1)[None]
    warped = F.grid_sample(source, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)
    warped = warped[0].permute(1, 2, 0).numpy()
    alpha = warped[..., 3:] / 255
    straight = warped[..., :3] / np.maximum(alpha, 1e-6)
    # 0.002 is half a step of 255: an alpha below is written as 0, and its colour would be noise.
    result = np.concatenate([np.where(alpha > 0.002, straight, 0.0), warped[..., 3:]], axis=-1)
    return result.round().clip(0, 255).astype(np.uint8)


def reduced(rgba: UInt8[np.ndarray, "H W 4"], factor: float) -> UInt8[np.ndarray, "h w 4"]:
    """The image, averaged down by about the factor between its pixels and those that are wanted: a bilinear
    sample of a larger one would leave most of it out. Itself where the factor is near 1, or above."""
    if factor >= 0.75:
        return rgba
    height, width = (max(1, round(side * factor)) for side in rgba.shape[:2])
    # Pillow resizes RGBA premultiplied.
    return np.asarray(Image.fromarray(rgba, "RGBA").resize((width, height), Image.Resampling.BOX))
