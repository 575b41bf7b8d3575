"""`<uid>.surface.npz`: points of an object's true surface. Imports no torch."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from jaxtyping import Float

from lgm.data.schema.sample import BrokenSample
from lgm.errors import reading

SURFACE_KEY = "surface.npz"
_ARRAY = "points"
# A compressed file of a few kilobytes can claim any size: 96 MiB are 16 million points in float16.
_MOST_BYTES = 96 * 2**20


def encode_surface(points: Float[np.ndarray, "P 3"]) -> bytes:
    """The file's content. float16: at the objects' size it rounds by a 4,000th of it at most."""
    held = io.BytesIO()
    np.savez_compressed(held, **{_ARRAY: points.astype(np.float16)})
    return held.getvalue()


def decode_surface(content: bytes, uid: str) -> Float[np.ndarray, "P 3"]:
    """Points in the frame of the object's cameras, float32; raises BrokenSample with the object and the
    fault."""
    what = f"object {uid!r}: {SURFACE_KEY}"
    with reading(what, kind=BrokenSample):
        size = sum(member.file_size for member in zipfile.ZipFile(io.BytesIO(content)).infolist())
        if size > _MOST_BYTES:
            raise BrokenSample(f"{what} unpacks to {size} bytes, more than {_MOST_BYTES}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if _ARRAY not in arrays:
                raise BrokenSample(f"{what} has no array named {_ARRAY!r}")
            points = arrays[_ARRAY]
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or points.dtype.kind != "f":
        raise BrokenSample(f"{what} has {points.dtype} of shape {points.shape}, expected floats [P, 3]")
    if not np.isfinite(points).all():
        raise BrokenSample(f"{what} holds NaN or infinity")
    return points.astype(np.float32)
