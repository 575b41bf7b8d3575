"""Images with a colour profile of their own (a phone's Display P3, a camera's Adobe RGB) in sRGB."""

from __future__ import annotations

import io
import logging
from pathlib import Path

from PIL import Image, ImageCms

log = logging.getLogger(__name__)

_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def in_srgb(image: Image.Image, path: Path) -> Image.Image:
    """The image with its embedded ICC profile applied, alpha kept; itself where it is sRGB already or has
    none. A profile that cannot be read is left out with a warning that names `path`."""
    content = image.info.get("icc_profile")
    if not content:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image  # to and from itself would only round
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
        alpha = image.getchannel("A") if image.mode in _WITH_ALPHA else None
        colors = image.convert({"LA": "L", "La": "L"}.get(image.mode, "RGB")) if alpha else image
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(colors, profile, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.warning("%s: its colour profile cannot be applied (%s); read as sRGB", path, error)
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted
