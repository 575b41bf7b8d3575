"""Drawn frames to a video."""

import io
import struct

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from lgm.viewer.video import frames_to_mp4


def frame(width: int = 32, height: int = 16, value: int = 200, kind: str = "JPEG") -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (width, height), (value, 0, 0)).save(file, format=kind)
        return struct.pack("<I", file.tell()) + file.getvalue()


def test_frames_become_a_video():
    content = frames_to_mp4(b"".join(frame(value=value) for value in (0, 120, 240)), fps=10)
    images = imageio.imread(content, extension=".mp4")
    assert images.shape == (3, 16, 32, 3)
    assert np.allclose(images[:, :, :, 0].mean(axis=(1, 2)), [0, 120, 240], atol=8)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "needs frames"),
        (b"\x01", "cut off"),
        (frame()[:-3], "cut off"),
        (frame(kind="PNG"), "no JPEG"),
        (frame(width=31), "even sides"),
        (frame() + frame(width=64), "in one video"),
    ],
)
def test_anything_else_is_refused(content, line):
    with pytest.raises(ValueError, match=line):
        frames_to_mp4(content, fps=10)


def test_a_speed_that_is_none_is_refused():
    with pytest.raises(ValueError, match="fps=0"):
        frames_to_mp4(frame(), fps=0)
