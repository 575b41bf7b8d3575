"""Images that a page has drawn, to a video."""

from __future__ import annotations

import io
import struct
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lgm.callbacks.evaluation.video import mp4

# What a page may send: 24 s at 30 frames a second, sides of H.264's common levels, and a bound on memory.
MAX_FRAMES, MAX_SIDE, MAX_BYTES = 720, 4096, 512 << 20
_LENGTH = struct.Struct("<I")


def frames_to_mp4(content: bytes, fps: float) -> bytes:
    """An H.264 video of JPEG images of one size and of even sides, each after its length (uint32,
    little-endian).

    Raises ValueError in one line for anything else.
    """
    if not 1 <= fps <= 120:
        raise ValueError(f"fps={fps:g} is not in 1..120")
    images = _split(content)
    width, height = _opened(images[0]).size
    # H.264 halves the colours' resolution (4:2:0), for which sides must be even.
    if width % 2 or height % 2 or max(width, height) > MAX_SIDE:
        raise ValueError(f"frames of {width}x{height} pixels: even sides up to {MAX_SIDE} make a video")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "turntable.mp4"
        with mp4(path, (width, height), fps) as write:
            for image in images:
                frame = _opened(image)
                if frame.size != (width, height):
                    raise ValueError(f"frames of {frame.size} and {(width, height)} pixels in one video")
                write(np.asarray(frame.convert("RGB"))[None])
        return path.read_bytes()


def _split(content: bytes) -> list[bytes]:
    images, at = [], 0
    while at < len(content):
        if at + _LENGTH.size > len(content):
            raise ValueError("the frames are cut off")
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        images.append(content[at : at + length])
        if len(images[-1]) != length or len(images) > MAX_FRAMES:
            raise ValueError(f"the frames are cut off, or more than {MAX_FRAMES}")
        at += length
    if not images:
        raise ValueError("a video needs frames")
    return images


def _opened(image: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(image), formats=["JPEG"])
    except (OSError, SyntaxError) as error:
        raise ValueError("a frame is no JPEG image") from error
