"""Environment images made by code."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_hdr(path: Path, radiance: np.ndarray) -> Path:
    """radiance: [H, W, 3], top row first. Radiance's RGBE, without run lengths."""
    largest = np.maximum(radiance.max(axis=-1), 1e-30)
    mantissa, exponent = np.frexp(largest)
    pixels = np.zeros((*largest.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.clip(radiance * (mantissa / largest * 256)[..., None], 0, 255)
    pixels[..., 3] = exponent + 128
    height, width = largest.shape
    header = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n"
    path.write_bytes(header.encode() + pixels.tobytes())
    return path
