"""A file that somebody sent: looked at before it is decoded, and written anew under a name of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lgm.app.messages import Refused
from lgm.data.captures.photos import open_image
from lgm.errors import first_line, reading

SIDES = ("front", "right", "back", "left")
KINDS = ".png, .jpg, .webp, .bmp, .tif, .avif"


@dataclass(frozen=True)
class Limits:
    """max_megabytes: of a file. max_megapixels: of an image. max_side: beyond which it is made smaller."""

    max_megabytes: float = 20.0
    max_megapixels: float = 50.0
    max_side: int = 1024

    @property
    def max_bytes(self) -> int:
        """The largest file in bytes."""
        return int(self.max_megabytes * (1 << 20))


def take_in(upload: Path, name: str, folder: Path, limits: Limits) -> Path:
    """Write the image that was uploaded as `<folder>/<name>.png`: upright as its EXIF says, sRGB, 8 bits.

    Opaque images are written without an alpha, so that their background counts as unknown.

    Raises Refused, which names the image, for a file that is too large, none of `KINDS` by its content, or of
    too many pixels; nothing is decoded before.
    """
    size = upload.stat().st_size
    if size > limits.max_bytes:
        raise Refused(
            f"{name}: the file has {size / (1 << 20):.1f} MB, {limits.max_megabytes:g} MB are the most"
        )
    try:
        with reading("the file", kind=Refused):
            # Reads the header alone: a small file can decode to gigabytes of pixels.
            image = open_image(upload, turn=True)
            megapixels = image.width * image.height / 1e6
            if megapixels > limits.max_megapixels:
                raise Refused(
                    f"the image has {image.width} × {image.height} pixels, {limits.max_megapixels:g} "
                    "megapixels are the most"
                )
            rgba, has_alpha = image.read()
    except ValueError as error:
        text = first_line(error).replace(str(upload), "the file")
        if "cannot be decoded" in text:
            text = f"the file is no image that can be read; give {KINDS}"
        raise Refused(f"{name}: {text}") from error
    # Written anew from its pixels: EXIF with places and names, and anything hidden in the file, stay behind.
    pixels = Image.fromarray(rgba, "RGBA")
    pixels.thumbnail((limits.max_side, limits.max_side), Image.Resampling.LANCZOS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    # Written fast rather than small: it is kept for an hour.
    (pixels if has_alpha else pixels.convert("RGB")).save(path, compress_level=1)
    return path
