"""Files that somebody sends are looked at before they are decoded."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lgm.app.messages import Refused
from lgm.app.uploads import Limits, take_in

LIMITS = Limits(max_megabytes=1, max_megapixels=0.5, max_side=64)


def png_of(width: int, height: int) -> bytes:
    """A header that asks for so many pixels, and no more."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 100) + b"IDAT" + b"\0" * 100


def refusal(tmp_path, content: bytes, name: str = "upload.png") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Refused) as error:
        take_in(path, "front", tmp_path / "images", LIMITS)
    assert not (tmp_path / "images").exists()
    assert str(tmp_path) not in str(error.value)
    assert str(error.value).startswith("front: ")
    return str(error.value)


def test_wrong_files_are_refused_in_a_line(tmp_path):
    assert "no image that can be read" in refusal(tmp_path, b"just text")
    assert "no image that can be read" in refusal(tmp_path, b"")
    assert "no image that can be read" in refusal(
        tmp_path, b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg"
    )
    assert "no image that can be read" in refusal(
        tmp_path, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )
    assert "no image" in refusal(tmp_path, b"\x89PNG\r\n\x1a\n")
    assert "megapixels are the most" in refusal(tmp_path, png_of(4000, 4000))
    assert "megapixels" in refusal(tmp_path, png_of(100_000, 100_000))
    assert "cannot be decoded" not in refusal(tmp_path, png_of(8, 8))  # cut off
    assert "1 MB are the most" in refusal(tmp_path, b"\0" * ((1 << 20) + 1))


def test_an_image_is_written_anew_under_our_name(tmp_path):
    turned = Image.fromarray(np.zeros((40, 80, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    turned.save(tmp_path / "..;rm.jpg", exif=exif)
    path = take_in(tmp_path / "..;rm.jpg", "left", tmp_path / "images", LIMITS)
    assert path == tmp_path / "images" / "left.png"
    with Image.open(path) as image:
        assert (image.size, image.mode, dict(image.getexif())) == ((32, 64), "RGB", {})


def test_an_alpha_that_says_something_stays_and_another_goes(tmp_path):
    rgba = np.full((8, 8, 4), 255, np.uint8)
    for name, mode in (("opaque", "RGB"), ("cut", "RGBA")):
        if name == "cut":
            rgba[:4, :, 3] = 0
        Image.fromarray(rgba).save(tmp_path / f"{name}.png")
        with Image.open(take_in(tmp_path / f"{name}.png", name, tmp_path / "images", LIMITS)) as image:
            assert image.mode == mode
