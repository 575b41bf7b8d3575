"""Images of another colour space (a phone's Display P3, a camera's Adobe RGB) in sRGB."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms

log = logging.getLogger(__name__)

_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
# A profile that moves none of these colours by more than _NEARLY is sRGB, whatever its description says:
# "DCI-P3 D65 Gamut with sRGB Transfer" is another space.
_LEVELS = np.linspace(0, 255, 5).astype(np.uint8)
_PROBE = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), axis=-1).reshape(1, -1, 3)
_NEARLY = 3  # levels of 255; profiles round their tables differently
_BLOCK_PIXELS = 1 << 20  # 12 MB in float32
# Of a PNG's gAMA chunk, whose usual value is 1 / 2.2.
_GAMMA_TOLERANCE = 0.05


@dataclass(frozen=True)
class _Space:
    """primaries: xy of red, green and blue; the white is D65. gamma: None for sRGB's curve."""

    primaries: tuple[tuple[float, float], ...]
    gamma: float | None = None

    def to_xyz(self) -> np.ndarray:
        """[3, 3], for linear colours as columns."""
        xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in self.primaries]).T
        white = np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])
        # Each primary is scaled so that together they make the white.
        return xyz * np.linalg.solve(xyz, white)


# From IEC 61966-2-1, SMPTE EG 432-1 and Adobe RGB (1998), in this order.
_SRGB = _Space(((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)))
_DISPLAY_P3 = _Space(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)))
_ADOBE_RGB = _Space(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), gamma=563 / 256)
# Numbers of ITU-T H.273 that are read as sRGB: BT.709, and "unspecified".
_SRGB_PRIMARIES, _P3_PRIMARIES = (1, 2), 12
_SRGB_TRANSFERS = (1, 2, 6, 13)  # BT.709 and BT.601 are shown with sRGB's curve


def in_srgb(image: Image.Image, path: Path) -> Image.Image:
    """The image in sRGB, alpha kept; itself where it is sRGB already or states nothing.

    Its space is that of the embedded ICC profile, or of EXIF's or HEIF's numbers where it has none. A space
    that cannot be read or is not known is left out with a warning that names `path`.
    """
    content = image.info.get("icc_profile")
    if not content:
        space = _stated_space(image, path)
        return image if space is None else _applied(image, lambda colors: _converted(colors, space))
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        srgb = ImageCms.createProfile("sRGB")
        if _is_srgb(profile, srgb):
            return image  # to and from itself would only round
        return _applied(
            image, lambda colors: ImageCms.profileToProfile(colors, profile, srgb, outputMode="RGB")
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.warning("%s: its colour profile cannot be applied (%s); read as sRGB", path, error)
        return image


def _is_srgb(profile: ImageCms.ImageCmsProfile, srgb: ImageCms.ImageCmsProfile) -> bool:
    # Gray or CMYK is converted, whatever its colours are near to.
    if profile.profile.xcolor_space.strip() != "RGB":
        return False
    probe = ImageCms.profileToProfile(Image.fromarray(_PROBE), profile, srgb, outputMode="RGB")
    return bool(np.abs(np.asarray(probe).astype(int) - _PROBE).max() <= _NEARLY)


def _applied(image: Image.Image, convert) -> Image.Image:
    """convert: from an image without alpha to one in RGB."""
    if image.mode in ("P", "PA"):
        # A palette's numbers are no colours that a profile applies to.
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    alpha = image.getchannel("A") if image.mode in _WITH_ALPHA else None
    colors = image.convert({"LA": "L", "La": "L"}.get(image.mode, "RGB")) if alpha else image
    converted = convert(colors)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _stated_space(image: Image.Image, path: Path) -> _Space | None:
    """The colour space that an image without a profile states; None for sRGB."""
    nclx = image.info.get("nclx_profile") or {}  # of HEIF and AVIF, as pillow-heif names it
    primaries = int(nclx.get("color_primaries", 2))
    transfer = int(nclx.get("transfer_characteristics", 2))
    if primaries not in (*_SRGB_PRIMARIES, _P3_PRIMARIES) or transfer not in _SRGB_TRANSFERS:
        log.warning(
            "%s: color_primaries=%d with transfer_characteristics=%d (HDR?) is not known; read as sRGB",
            path, primaries, transfer,
        )  # fmt: skip
        return None
    if primaries == _P3_PRIMARIES:
        return _DISPLAY_P3
    gamma = image.info.get("gamma")
    if gamma and "srgb" not in image.info and abs(gamma - 1 / 2.2) > _GAMMA_TOLERANCE:
        log.warning("%s: gAMA=%.3f is not applied; read as sRGB", path, gamma)
    # Of a PNG that has none before its pixels, Pillow would decode them to look behind.
    if image.format == "PNG" and "exif" not in image.info:
        return None
    # A camera that is set to Adobe RGB embeds no profile: the DCF standard states it here.
    exif = image.getexif()
    # Some releases of Pillow raise KeyError where Exif has no such table.
    has_interop = ExifTags.IFD.Interop in exif.get_ifd(ExifTags.IFD.Exif)
    interop = has_interop and exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    return _ADOBE_RGB if str(interop).strip("\0 ") == "R03" else None


def _converted(image: Image.Image, space: _Space) -> Image.Image:
    pixels = np.asarray(image.convert("RGB"))
    levels = np.arange(256) / 255
    if space.gamma is None:
        # A table of 256 values instead of a power for each pixel.
        linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    else:
        linear = levels**space.gamma
    linear = linear.astype(np.float32)
    matrix = np.linalg.solve(_SRGB.to_xyz(), space.to_xyz()).astype(np.float32)
    converted = np.empty_like(pixels)
    rows = max(1, _BLOCK_PIXELS // image.width)
    for start in range(0, image.height, rows):  # all of a large photo in float32 is gigabytes
        # Colours that sRGB cannot show are cut off channel by channel.
        colors = np.clip(linear[pixels[start : start + rows]] @ matrix.T, 0, 1)
        encoded = np.where(colors <= 0.0031308, 12.92 * colors, 1.055 * colors ** (1 / 2.4) - 0.055)
        converted[start : start + rows] = np.round(255 * encoded)
    return Image.fromarray(converted)
