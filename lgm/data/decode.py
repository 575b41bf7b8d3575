"""Compressed pictures to arrays."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from PIL import Image, UnidentifiedImageError

from lgm.data.sample import BrokenSample

FORMATS = ("WEBP", "PNG")


def decode_rgba(files: Sequence[bytes], view_ids: Sequence[int], uid: str) -> np.ndarray:
    """WebP or PNG files to one uint8 array [n, H, W, 4] with straight alpha.

    RGB is opaque: encoders of WebP leave out an alpha that is 255 everywhere. Raises BrokenSample
    naming the object and the view whose picture cannot be read, is of another kind, or has another
    size than its siblings.
    """
    pictures = []
    for file, view in zip(files, view_ids, strict=True):
        try:
            # Named, or Pillow tries its readers one after the other: a tenth of the time.
            with Image.open(io.BytesIO(file), formats=FORMATS) as image:
                if image.mode not in ("RGBA", "RGB"):
                    raise BrokenSample(f"object {uid!r}: view {view} is {image.mode}, expected RGBA")
                pictures.append(np.asarray(image if image.mode == "RGBA" else image.convert("RGBA")))
        except BrokenSample:
            raise
        except UnidentifiedImageError as error:
            raise BrokenSample(
                f"object {uid!r}: view {view} cannot be decoded: {len(file)} bytes, neither WebP nor PNG"
            ) from error
        except Exception as error:  # Pillow raises whatever its codec meets
            raise BrokenSample(f"object {uid!r}: view {view} cannot be decoded: {error}") from error
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        raise BrokenSample(f"object {uid!r}: views of different sizes {sorted(sizes)}")
    return np.stack(pictures)


def decode_depths(
    files: Sequence[bytes], view_ids: Sequence[int], uid: str, unit: float
) -> Float32[np.ndarray, "n H W"]:
    """16-bit PNG files to distances, 0 for nothing; raises BrokenSample.

    unit: what 1 in the files stands for.
    """
    depths = []
    for file, view in zip(files, view_ids, strict=True):
        try:
            with Image.open(io.BytesIO(file), formats=("PNG",)) as image:
                if not image.mode.startswith("I"):
                    raise BrokenSample(f"object {uid!r}: depth {view} is {image.mode}, expected 16 bits")
                depths.append(np.asarray(image, dtype=np.float32) * np.float32(unit))
        except BrokenSample:
            raise
        except UnidentifiedImageError as error:
            raise BrokenSample(
                f"object {uid!r}: depth {view} cannot be decoded: {len(file)} bytes, no PNG"
            ) from error
        except Exception as error:  # Pillow raises whatever its codec meets
            raise BrokenSample(f"object {uid!r}: depth {view} cannot be decoded: {error}") from error
    return np.stack(depths)
