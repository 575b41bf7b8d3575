"""Images of one object in a folder, and where each was taken from, in the user's own frame."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from jaxtyping import Float, UInt8
from PIL import ExifTags, ImageOps

from lgm import files
from lgm.cameras.checks import pose_fault
from lgm.cameras.lens import Lens
from lgm.data.captures.color_profiles import in_srgb
from lgm.data.captures.masks import read_mask
from lgm.data.schema.decode import IMAGE_FORMATS, MAX_PIXELS, opened_image
from lgm.data.schema.sample import BrokenSample
from lgm.errors import reading, shown

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
_HEIF = (".heic", ".heif")  # a phone's, which Pillow reads through pillow-heif alone
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_SIZE_TOLERANCE = 0.01  # relative, of the aspect; sizes are whole pixels, also of reduced images


@dataclass(frozen=True)
class Image:
    """An image's file, its size as it is read, and whether its EXIF orientation is applied.

    mask: a file beside it that is white where the object is; it becomes the alpha.
    """

    path: Path
    width: int
    height: int
    turned: bool = False
    mask: Path | None = None

    def read(self) -> tuple[UInt8[np.ndarray, "H W 4"], bool]:
        """Its pixels in sRGB, straight alpha, and whether it has an alpha that says anything."""
        with opened_image(self.path, self.path, max_pixels=MAX_PIXELS, formats=IMAGE_FORMATS) as image:
            image = ImageOps.exif_transpose(image) if self.turned else image
            rgba = np.asarray(in_srgb(image, self.path).convert("RGBA"))
        if self.mask is not None:
            # The object is where both say so.
            alpha = np.minimum(rgba[..., 3], read_mask(self.mask, (self.width, self.height)))
            return np.concatenate([rgba[..., :3], alpha[..., None]], axis=-1), True
        return rgba, bool((rgba[..., 3] < 255).any())


@dataclass(frozen=True)
class Photo:
    """An image with its camera.

    c2w: camera-to-world in the user's frame, OpenCV axes.
    """

    image: Image
    lens: Lens
    c2w: Float[np.ndarray, "4 4"]


@dataclass(frozen=True)
class Capture:
    """All photos of one object.

    up: the world's up as the cameras' file defines it; None where it does not.
    posed: whether a file said where the images were taken from.
    """

    uid: str
    photos: tuple[Photo, ...]
    up: tuple[float, float, float] | None
    posed: bool

    def in_order(self) -> Capture:
        """With its photos in the order of their paths, numbers in them as numbers, whatever the order in
        which a file of cameras names them: a view's number then means the same in every format. A ring
        without such a file keeps the order of its azimuths."""
        if not self.posed:
            return self
        return replace(self, photos=tuple(sorted(self.photos, key=lambda photo: _order(photo.image.path))))

    def check(self) -> Capture:
        """Itself; raises BrokenSample naming the first image that is there twice, or whose camera is
        none."""
        if not self.photos:
            raise BrokenSample(f"object {self.uid!r}: the file of its cameras names no images")
        paths = [os.path.normpath(photo.image.path) for photo in self.photos]
        seen: set[str] = set()
        for path in paths:
            if path in seen:  # as a target it would be compared with itself as an input
                raise BrokenSample(
                    f"object {self.uid!r}: the file of its cameras names {path} more than once; name each "
                    "image once"
                )
            seen.add(path)
        fault = pose_fault(np.stack([photo.c2w for photo in self.photos]))
        if fault:
            view, what = fault
            raise BrokenSample(f"object {self.uid!r}: the camera of {self._name(view)}: {what}")
        for view, photo in enumerate(self.photos):
            if photo.lens.fault:
                raise BrokenSample(
                    f"object {self.uid!r}: the camera of {self._name(view)} {photo.lens.fault}"
                )
        return self

    def _name(self, view: int) -> str:
        return self.photos[view].image.path.name


def open_image(path: Path, turn: bool = False) -> Image:
    """Read an image's header.

    turn: apply its EXIF orientation.
    """
    if not path.is_file():
        raise BrokenSample(f"{path} is missing")
    if path.suffix.lower() in _HEIF:
        _register_heif(path)
    with opened_image(path, path, max_pixels=MAX_PIXELS, formats=IMAGE_FORMATS) as image:
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise BrokenSample(f"{path} has more than 8 bits a channel (mode {image.mode}); convert it")
        width, height = image.size
        # Of a PNG that has none before its pixels, Pillow would decode them to look behind.
        is_told = image.format != "PNG" or "exif" in image.info
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if is_told else 1
    if turn and orientation in _TURNED:
        width, height = height, width
    return Image(path, width, height, turned=turn and orientation != 1)


def fitted(path: Path, lens: Lens, source: str) -> tuple[Image, Lens]:
    """An image, and the lens that a file states for it at the image's own resolution.

    Where the shapes disagree, the image is turned by its EXIF orientation if they then agree.

    source: what states the lens, for errors.
    """
    image = open_image(path)
    if not _alike(image, lens) and _alike(turned := open_image(path, turn=True), lens):
        image = turned
    if not _alike(image, lens):
        raise BrokenSample(
            f"{path} has {image.width} × {image.height} pixels, {source} says {lens.width} × "
            f"{lens.height}; give the images that the cameras were found for"
        )
    return image, lens.resized(image.width, image.height)


def one_size(images: Sequence[Image], uid: str, why: str) -> tuple[int, int]:
    """Width and height of all images; raises BrokenSample where they differ."""
    first = images[0]
    for other in images:
        if (other.width, other.height) != (first.width, first.height):
            raise BrokenSample(
                f"object {uid!r}: images of different sizes, {first.path.name} of {first.width} × "
                f"{first.height} and {other.path.name} of {other.width} × {other.height}; {why}"
            )
    return first.width, first.height


def find_images(folder: Path) -> list[Path]:
    """The images that lie in a folder, in the order of their names, numbers in them as numbers."""
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not path.name.startswith(".")
    ]
    return sorted(paths, key=_order)


def find_stated(folder: Path, stated: str) -> Path:
    """The file that a camera file names, relative to its own folder.

    The name may be another system's (`.\\images\\1.png`), or absolute on the machine that wrote it: then its
    longest end that exists below `folder` counts. Without a suffix of an image it gets one. A file that
    does not exist is returned as the name says, for the error.
    """
    candidates = [folder / stated]
    if "\\" in stated:
        candidates.append(folder / stated.replace("\\", "/"))
    if PureWindowsPath(stated).is_absolute() or PurePosixPath(stated).is_absolute():
        parts = PureWindowsPath(stated).parts[1:]  # which takes both kinds of slashes
        # The longest end first: a short one could name another folder's file of the same name.
        candidates += [folder.joinpath(*parts[start:]) for start in range(len(parts))]
    for path in candidates:
        if path.is_file():
            return path
        if path.suffix.lower() not in EXTENSIONS:
            for suffix in EXTENSIONS:  # .png first, as NeRF's synthetic scenes have it
                if (with_suffix := path.with_name(path.name + suffix)).is_file():
                    return with_suffix
    first = candidates[0]
    return first if first.suffix.lower() in EXTENSIONS else first.with_name(first.name + ".png")


def read_text(path: Path) -> str:
    """A text file with or without a byte order mark; raises BrokenSample."""
    with reading(path, "it is not text", BrokenSample):
        return files.read_text(path)


def number(content: Mapping, key: str, where: str) -> float | None:
    """A field as a number, None where it is not there; BrokenSample where it is something else."""
    if content.get(key) is None:
        return None
    with reading(f"{where}: {key}={shown(repr(content[key]))}", "it is no number", BrokenSample):
        return float(content[key])


def _register_heif(path: Path) -> None:
    """Teach Pillow to read a phone's images; BrokenSample where the package is missing."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise BrokenSample(
            f"{path} needs pillow-heif to be read: pip install pillow-heif, or convert it to .jpg"
        ) from error
    register_heif_opener()


def _order(path: Path) -> list[list[tuple[int, int, str]]]:
    return [_natural(part) for part in Path(os.path.normpath(path)).parts]


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)  # words and numbers in turn
    return [(index % 2, int(part) if index % 2 else 0, part) for index, part in enumerate(parts)]


def _alike(image: Image, lens: Lens) -> bool:
    """Whether one is the other at another resolution."""
    return abs(image.width / image.height * lens.height / lens.width - 1) <= _SIZE_TOLERANCE
