"""Environment images (HDRI): whether a file can be one. What is inside is read by the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from lgm.files import file_sha256

# By suffix, how a file of the kind begins: Radiance's RGBE, OpenEXR.
_STARTS = {".hdr": (b"#?RADIANCE", b"#?RGBE"), ".exr": (b"\x76\x2f\x31\x01",)}
# Of the width: an equirectangular image is twice as wide as high.
_ASPECT_TOLERANCE = 0.01


def check_hdri(path: Path) -> str:
    """The file's sha256; raises FileNotFoundError, or ValueError where it is no .hdr or .exr."""
    if not path.is_file():
        raise FileNotFoundError(f"--hdri {path} is not a file; give an environment image, .hdr or .exr")
    starts = _STARTS.get(path.suffix.lower())
    if starts is None:
        raise ValueError(f"--hdri {path} is named {path.suffix or 'without a suffix'}, expected .hdr or .exr")
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if not start.startswith(starts):
            raise ValueError(f"--hdri {path} cannot be read: it does not begin as a {path.suffix} file")
        return file_sha256(path)
    except OSError as error:
        raise ValueError(f"--hdri {path} cannot be read: {error.strerror}") from error


def check_radiance(radiance: Float[np.ndarray, "H W 3"], path: str) -> None:
    """Raises ValueError for what is no environment: of another shape, dark everywhere, NaN."""
    height, width, _ = radiance.shape
    if abs(width - 2 * height) > max(_ASPECT_TOLERANCE * width, 1):
        raise ValueError(
            f"--hdri {path} is {width / height:.3g} times as wide as high, expected 2 (equirectangular)"
        )
    if not np.isfinite(radiance).all():
        count = int((~np.isfinite(radiance)).any(axis=-1).sum())
        raise ValueError(f"--hdri {path} is NaN or infinite in {count} pixels; mend the image")
    if radiance.min() < 0 or not radiance.max() > 0:
        raise ValueError(f"--hdri {path} is black everywhere, or has negative radiance; give another image")
