"""Decoding of compressed images to arrays.

An image's size is checked before anything is decoded: half a megabyte of PNG can ask for five gigabytes.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image, UnidentifiedImageError

from lgm.data.schema.sample import BrokenSample
from lgm.errors import reading

FORMATS = ("WEBP", "PNG")
MAX_VIEW_SIDE = 4096  # pixels, of a view of a set whose index names no resolution
_MIN_BOUND, _MAX_BOUND = 1024, 16384
MAX_PIXELS = 1 << 28  # of the views that are decoded together: 1 GiB of RGBA
# Of Pillow's readers, those for own images, whatever a file's name says: some start other programs (EPS).
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")
_PNG, _WEBP_ANIMATED = b"\x89PNG\r\n\x1a\n", 0x02


def max_side(resolution: float) -> int:
    """The largest side, in pixels, that a view of a set may have whose index names this resolution: some
    sets are a little larger than they say, an image of a hundred times the size is there to fill memory."""
    return int(min(max(4 * resolution, _MIN_BOUND), _MAX_BOUND))


def decode_rgba(
    files: Sequence[bytes], view_ids: Sequence[int], uid: str, largest: int = MAX_VIEW_SIDE
) -> np.ndarray:
    """WebP or PNG files to one uint8 array [n, H, W, 4] with straight alpha.

    RGB is opaque: encoders of WebP leave out an alpha that is 255 everywhere. Raises BrokenSample
    naming the object and the view whose image cannot be read, is of another kind, animated, larger than
    `largest` pixels a side, or of another size than its siblings.
    """
    images = []
    for file, view in zip(files, view_ids, strict=True):
        what = f"object {uid!r}: view {view}"
        with opened_image(file, what, largest) as image:
            if image.mode not in ("RGBA", "RGB"):
                raise BrokenSample(f"{what} is {image.mode}, expected RGBA")
            _check_total(image.size, len(files), what)
            images.append(np.asarray(image if image.mode == "RGBA" else image.convert("RGBA")))
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise BrokenSample(f"object {uid!r}: views of different sizes {sorted(sizes)}")
    return np.stack(images)


def decode_depths(
    files: Sequence[bytes], view_ids: Sequence[int], uid: str, unit: float, largest: int = MAX_VIEW_SIDE
) -> Float32[np.ndarray, "n H W"]:
    """16-bit PNG files to distances, 0 for nothing; raises BrokenSample.

    unit: what 1 in the files stands for, in world units. largest: see `decode_rgba`.
    """
    depths = []
    for file, view in zip(files, view_ids, strict=True):
        what = f"object {uid!r}: depth {view}"
        with opened_image(file, what, largest, formats=("PNG",)) as image:
            if not image.mode.startswith("I"):
                raise BrokenSample(f"{what} is {image.mode}, expected 16 bits")
            _check_total(image.size, len(files), what)
            depths.append(np.asarray(image, dtype=np.float32) * np.float32(unit))
    sizes = {depth.shape for depth in depths}
    if len(sizes) > 1:
        raise BrokenSample(f"object {uid!r}: depths of different sizes {sorted(sizes)}")
    return np.stack(depths)


def _check_total(size: tuple[int, int], count: int, what: str) -> None:
    pixels = size[0] * size[1] * count
    if pixels > MAX_PIXELS:
        raise BrokenSample(
            f"{what} is {size[0]} × {size[1]}, and {count} such at once are {pixels / 1e6:.0f} megapixels, "
            f"more than {MAX_PIXELS / 1e6:.0f}; pack the set at a lower --resolution"
        )


@contextmanager
def opened_image(
    source: bytes | Path,
    what: object,
    max_side: int | None = None,
    max_pixels: int | None = None,
    formats: tuple[str, ...] | None = FORMATS,
    kind: type[ValueError] = BrokenSample,
    remedy: str = "",
) -> Iterator[Image.Image]:
    """An image from elsewhere, opened and not yet decoded, whose size is known to be bearable; whatever goes
    wrong within the block is one line that names it.

    what: names it in errors. max_side, max_pixels: of width and height, and of their product; None is no
    bound. formats: Pillow's names; None is all. kind: of the errors. remedy: of an image that is too large.

    PNG and WebP tell their size in their first bytes; Pillow allocates a WebP's canvas while it opens it.
    """

    def check(width: int, height: int) -> None:
        if max_side is not None and max(width, height) > max_side:
            bound = f"{max_side} a side"
        elif max_pixels is not None and width * height > max_pixels:
            bound = f"{max_pixels / 1e6:.3g} megapixels"
        else:
            return
        raise kind(f"{what} is {width} × {height}, larger than {bound}" + (f"; {remedy}" if remedy else ""))

    with reading(what, kind=kind, verb="decoded"):
        size, frames = _header(source[:64] if isinstance(source, bytes) else _start(source))
        if size is not None:
            check(*size)
        if frames > 1:
            raise kind(f"{what} is an animation, expected one image")
        # Formats are named, or Pillow tries its readers one after the other: a tenth of the time.
        with _open(source, what, formats, kind) as image:
            check(*image.size)
            if image.format in FORMATS and getattr(image, "n_frames", 1) > 1:
                raise kind(f"{what} is an animation of {image.n_frames} images, expected one")
            yield image


def known_formats(formats: tuple[str, ...] | None = None) -> list[str]:
    """Those of Pillow's formats that it reads here, AVIF and HEIF not everywhere; None is all. Never EPS: a
    file of that kind is a program, and Pillow starts Ghostscript to run it."""
    Image.init()
    return [form for form in formats or Image.OPEN if form in Image.OPEN and form != "EPS"]


def _open(
    source: bytes | Path, what: object, formats: tuple[str, ...] | None, kind: type[ValueError]
) -> Image.Image:
    known = known_formats(formats)
    try:
        with warnings.catch_warnings():
            # Of a size that is checked right behind, and of metadata that nobody reads.
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=known)
    except UnidentifiedImageError as error:  # whose own text says where in memory the bytes lie
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        kinds: dict[tuple[str, ...] | None, str] = {
            None: "no image that this program reads",
            FORMATS: "neither WebP nor PNG",
        }
        reason = kinds.get(formats) or f"no {' or '.join(known)}"
        raise kind(f"{what} cannot be decoded: {size} bytes, {reason}") from error


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _header(start: bytes) -> tuple[tuple[int, int] | None, int]:
    """Width and height, where the first bytes of a PNG or WebP tell them, and 2 for an animated WebP."""
    if start.startswith(_PNG) and len(start) >= 24:
        return struct.unpack(">II", start[16:24]), 1
    if start[:4] != b"RIFF" or start[8:12] != b"WEBP" or len(start) < 30:
        return None, 1
    form = start[12:16]
    if form == b"VP8X":  # flags, reserved, then 24 bits each of width - 1 and height - 1
        width, height = (int.from_bytes(start[i : i + 3], "little") + 1 for i in (24, 27))
        return (width, height), 2 if start[20] & _WEBP_ANIMATED else 1
    if form == b"VP8L":  # a signature byte, then 14 bits each of width - 1 and height - 1
        bits = int.from_bytes(start[21:25], "little")
        return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), 1
    if form == b"VP8 ":  # a frame tag of 3 bytes, a start code of 3, then 14 bits each
        width, height = struct.unpack("<HH", start[26:30])
        return (width & 0x3FFF, height & 0x3FFF), 1
    return None, 1
