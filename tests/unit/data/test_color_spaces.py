"""Photos that state another colour space than sRGB, by a profile or without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from lgm.data.captures import color_profiles
from lgm.data.captures.color_profiles import in_srgb
from tests.unit.data.test_own_images_framing import display_p3

# sRGB colours, and as the two wider spaces have them (CSS Color 4's sample code, rounded).
SRGB = [(255, 0, 0), (0, 255, 0), (128, 128, 128), (200, 100, 50)]
DISPLAY_P3 = [(234, 51, 35), (117, 251, 76), (128, 128, 128), (187, 106, 62)]
ADOBE_RGB = [(219, 0, 0), (144, 255, 60), (127, 127, 127), (172, 100, 56)]


def image_of(colors) -> Image.Image:
    return Image.fromarray(np.array([colors], dtype=np.uint8))


def assert_is_srgb(image: Image.Image, within: int = 4) -> None:
    np.testing.assert_allclose(np.asarray(image.convert("RGB"))[0].astype(int), SRGB, atol=within)


def test_a_camera_set_to_adobe_rgb_is_read_as_such(tmp_path, caplog):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 65535
    interop = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {ExifTags.Interop.InteropIndex: "R03"}
    image_of(ADOBE_RGB).resize((64, 16), 0).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as image:
        assert_is_srgb(in_srgb(image, tmp_path / "a.jpg").resize((4, 1), 0), within=6)
    interop[ExifTags.Interop.InteropIndex] = "R98"
    image_of(SRGB).save(tmp_path / "b.jpg", exif=exif)
    with Image.open(tmp_path / "b.jpg") as image:
        assert in_srgb(image, tmp_path / "b.jpg") is image
    assert not caplog.messages


def test_large_images_are_converted_in_blocks(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (11, 7, 3), dtype=np.uint8)
    whole = color_profiles._converted(Image.fromarray(pixels), color_profiles._DISPLAY_P3)
    monkeypatch.setattr(color_profiles, "_BLOCK_PIXELS", 14)
    blocks = color_profiles._converted(Image.fromarray(pixels), color_profiles._DISPLAY_P3)
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(blocks))


def test_heif_numbers_in_place_of_a_profile(caplog):
    path, image = Path("a.heic"), image_of(DISPLAY_P3)
    image.putalpha(77)
    image.info["nclx_profile"] = {"color_primaries": 12, "transfer_characteristics": 13}
    converted = in_srgb(image, path)
    assert_is_srgb(converted)
    assert np.all(np.asarray(converted)[..., 3] == 77)
    for known in ({}, {"color_primaries": 1, "transfer_characteristics": 13}):
        image.info["nclx_profile"] = known
        assert in_srgb(image, path) is image
    assert not caplog.messages
    image.info["nclx_profile"] = {"color_primaries": 9, "transfer_characteristics": 16}
    assert in_srgb(image, path) is image
    assert "a.heic: color_primaries=9 with transfer_characteristics=16" in caplog.text


def test_a_profile_is_judged_by_its_colors_and_not_by_its_name(monkeypatch):
    """Samsung's phones write "DCI-P3 D65 Gamut with sRGB Transfer"."""
    monkeypatch.setattr(ImageCms, "getProfileDescription", lambda profile: "P3 with sRGB Transfer")
    image = image_of(DISPLAY_P3)
    image.info["icc_profile"] = display_p3()
    converted = np.asarray(in_srgb(image, Path("a.png")))[0]
    assert np.abs(converted[0].astype(int) - (255, 0, 0)).max() <= 12


@pytest.mark.parametrize(("gamma", "is_noted"), [(0.45455, False), (1.0, True)])
def test_an_unusual_gamma_is_noted(caplog, gamma, is_noted):
    image = image_of(SRGB)
    image.info["gamma"] = gamma
    assert in_srgb(image, Path("a.png")) is image
    assert bool(caplog.messages) == is_noted


def test_the_spaces_share_their_white():
    for space in (color_profiles._SRGB, color_profiles._DISPLAY_P3, color_profiles._ADOBE_RGB):
        np.testing.assert_allclose(space.to_xyz().sum(axis=1), [0.9505, 1, 1.0891], atol=1e-3)
