"""Images as people have them: named by sides, off-centre, in colours and systems of their own."""

import io
import json
import logging
import shutil
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from lgm.data.captures.color_profiles import in_srgb
from lgm.data.captures.photos import find_stated, open_image
from lgm.data.captures.sides import named_azimuths_deg
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.images.background import Keep, PlainWhite
from lgm.data.sources.images.source import ImagesSource
from tests.own_images import Shoot

RED = (200, 30, 30, 255)


def load(folder, background=None, **options):
    return ImagesSource(str(folder), background or Keep(), **options).load(0, 0)


def write_box(path, size, box, color=RED):
    """A box (left, top, right, bottom) of one colour on a transparent image of `size` (width, height)."""
    rgba = np.zeros((size[1], size[0], 4), np.uint8)
    left, top, right, bottom = box
    rgba[top:bottom, left:right] = color
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgba).save(path)


def boxes(found) -> np.ndarray:
    """[V, 4] left, top, right, bottom of what is solid, as fractions of the side."""
    result = []
    for pixels in found.decode(range(found.cameras.num_views)):
        solid = pixels[..., 3] >= 128
        rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
        result.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return np.array(result) / pixels.shape[0]


# ---- sides


@pytest.mark.parametrize(
    ("names", "azimuths"),
    [
        (["back", "front", "left", "right"], [180, 0, 270, 90]),
        (["Camera_right", "Camera_left", "Camera_front", "Camera_back"], [90, 270, 0, 180]),
        (["chairFront", "chairRIGHT", "chairRear", "chairLeftSide"], [0, 90, 180, 270]),
        (["frontview", "rightview", "backview", "leftview"], [0, 90, 180, 270]),
        (["left_shoe_left", "left_shoe_front", "left_shoe_back", "left_shoe_right"], [270, 0, 180, 90]),
        (["1-front-final", "2-right-final", "3-back-final", "4-left-final"], [0, 90, 180, 270]),
        (["front", "front_right", "right", "right-back"], [0, 45, 90, 135]),
        (["left_front", "back_left"], [315, 225]),
        (["front", "back"], [0, 180]),
    ],
)
def test_sides_are_read_from_names(names, azimuths):
    assert named_azimuths_deg(names) == azimuths


@pytest.mark.parametrize(
    "names",
    [
        ["0", "1", "2", "3"],
        ["copyright_0", "copyright_1", "bright", "frontier"],
        ["background_a", "background_b", "leftover", "backpack"],
        ["front_1", "front_2", "front_3", "front_4"],  # of a chair's front: all share it
    ],
)
def test_other_names_state_no_side(names):
    assert named_azimuths_deg(names) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["front", "right", "back", "img4"], "img4 names none"),
        (["front", "right", "back", "rear"], "back and rear name the same side"),
        (["front", "front_2", "back", "left"], "front and front_2 name the same side"),
        (["front_back", "right", "back", "left"], "front_back names several sides"),
    ],
)
def test_sides_that_contradict_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        named_azimuths_deg(names)


def test_named_images_stand_where_their_names_say(tmp_path, caplog):
    shoot = Shoot.of()
    names = ["Camera_front.png", "Camera_right.png", "Camera_back.png", "Camera_left.png"]
    shoot.write(tmp_path / "numbers", "{}.png")
    for view, name in enumerate(names):
        (tmp_path / "sides").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "numbers" / f"{view}.png", tmp_path / "sides" / name)
    with caplog.at_level(logging.INFO):
        sides, numbers = load(tmp_path / "sides"), load(tmp_path / "numbers")
    assert np.array_equal(sides.cameras.c2w, numbers.cameras.c2w)
    assert np.array_equal(sides.decode(range(4)), numbers.decode(range(4)))
    by_side, by_order = (line for line in caplog.messages if "azimuth" in line)
    assert "the sides that the names state: 0 Camera_front.png, 90 Camera_right.png" in by_side
    assert "the order of the names: 0 0.png, 90 1.png, 180 2.png, 270 3.png" in by_order
    (tmp_path / "sides" / "Camera_left.png").rename(tmp_path / "sides" / "last.png")
    with pytest.raises(BrokenSample, match="last names none"):
        load(tmp_path / "sides")


def test_sides_that_the_ring_lacks_are_refused(tmp_path):
    for name in ("front", "right", "back"):
        write_box(tmp_path / f"{name}.png", (32, 32), (8, 8, 24, 24))
    with pytest.raises(BrokenSample, match=r"back.png states azimuth 180 .*data.azimuths_deg=\[0.0, 120.0"):
        load(tmp_path, azimuths_deg=[0, 120, 240])


# ---- recentring


def test_images_off_the_middle_get_one_scale_and_one_vertical_centre(tmp_path, caplog):
    """A car: broad from the side, narrow from the front, wherever it stands in each image."""
    shapes = [(20, 40, 40, 60), (70, 42, 130, 62), (100, 41, 120, 61), (10, 40, 70, 60)]
    for view, box in enumerate(shapes):
        write_box(tmp_path / f"{view}.png", (160, 120), box)
    with caplog.at_level(logging.INFO):
        result = boxes(load(tmp_path))
    widths, middles = result[:, 2] - result[:, 0], result[:, [0, 2]].mean(axis=1)
    assert np.allclose(widths, [0.8 / 3, 0.8, 0.8 / 3, 0.8], atol=0.03)  # the broadest fills 1 - 0.2
    assert np.allclose(middles, 0.5, atol=0.02)
    assert np.allclose(result[:, 1] - result[0, 1], np.array([0, 2, 1, 0]) / 75, atol=0.015)  # as it stood
    assert result[:, 1].min() + result[:, 3].max() == pytest.approx(1, abs=0.03)
    assert sum("recentred (data.recenter)" in line for line in caplog.messages) == 4


def test_images_cropped_one_by_one_are_matched_by_the_objects_height(tmp_path):
    write_box(tmp_path / "0.png", (100, 200), (10, 20, 90, 180))  # 80 × 160
    write_box(tmp_path / "1.png", (60, 50), (10, 5, 50, 45))  # 40 × 40: half as near
    result = boxes(load(tmp_path, azimuths_deg=[0, 180]))
    heights = result[:, 3] - result[:, 1]
    assert heights[0] == pytest.approx(heights[1], abs=0.03) and heights[0] == pytest.approx(0.8, abs=0.03)


def test_another_resolution_of_the_same_shape_keeps_the_scale(tmp_path):
    write_box(tmp_path / "0.png", (160, 120), (20, 40, 40, 60))
    write_box(tmp_path / "1.png", (320, 240), (40, 80, 160, 160))  # as if 60 × 40 there
    result = boxes(load(tmp_path, azimuths_deg=[0, 180]))
    heights = result[:, 3] - result[:, 1]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.1)


@pytest.mark.parametrize(
    ("box", "kept"),
    [((20, 24, 80, 72), True), ((25, 24, 84, 72), True), ((34, 24, 94, 72), False), ((40, 0, 60, 99), False)],
)
def test_square_images_with_the_object_whole_and_central_stay(tmp_path, caplog, box, kept):
    for view in range(4):
        write_box(tmp_path / f"{view}.png", (100, 100), box)
    with caplog.at_level(logging.INFO):
        result = boxes(load(tmp_path))
    assert np.allclose(result, np.array(box) / 100, atol=0.011) == kept
    assert sum("stays as it is" in line for line in caplog.messages) == 4 * kept
    assert np.allclose(boxes(load(tmp_path, recenter=None)), np.array(box) / 100, atol=0.011)


def test_images_without_a_background_stay_as_they_are(tmp_path):
    for view in range(4):
        Image.new("RGB", (64, 64), (90, 60, 30)).save(tmp_path / f"{view}.png")
    assert (load(tmp_path).decode([0])[..., 3] == 255).all()


# ---- backgrounds


@pytest.mark.parametrize("grey", [235, 128, 0])
def test_a_background_that_is_not_white_is_refused(tmp_path, grey):
    rgb = np.full((64, 64, 3), grey, np.uint8)
    rgb[20:40, 20:40] = (200, 30, 30)
    with pytest.raises(BrokenSample, match=r"photo.jpg: data/background=white, and 0 % .*tolerance"):
        PlainWhite().cut(rgb, tmp_path / "photo.jpg")


def test_a_background_that_is_partly_white_is_named(tmp_path, caplog):
    rgb = np.full((64, 64, 3), 255, np.uint8)
    rgb[20:] = (120, 110, 100)  # the table it stands on
    PlainWhite().cut(rgb, tmp_path / "photo.jpg")
    assert "photo.jpg: data/background=white, and 4" in caplog.text and "not plain white" in caplog.text


# ---- colours


def display_p3() -> bytes:
    """An ICC profile of matrix and curves: Display P3's primaries (adapted to D50), gamma 2.2."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    def xyz(*numbers: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*numbers)

    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    name = b"Display P3\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(79),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.51512, 0.2412, -0.00105),
        b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.1571, 0.06657, 0.78407),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma),
    }
    table, body, offset = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", offset + len(body), b"test", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48)
    return header + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_profile_of_another_gamut_is_applied(tmp_path, mode):
    """sRGB's red, as Display P3 has it, and a grey, which both have alike."""
    image = Image.new("RGB", (8, 4), (234, 51, 35))
    image.paste((128, 128, 128), (4, 0, 8, 4))
    image = image.convert(mode, palette=Image.Palette.ADAPTIVE) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png", icc_profile=display_p3())
    opened = open_image(tmp_path / "a.png")
    rgba, _ = opened.read()
    assert np.abs(rgba[0, 0].astype(int) - (255, 0, 0, 255)).max() <= 12
    assert np.abs(rgba[0, 7].astype(int) - (128, 128, 128, 255)).max() <= 3


def test_alpha_and_srgb_are_not_touched_and_broken_profiles_are_named(tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert in_srgb(image, tmp_path / "a.png") is image
    image.info["icc_profile"] = display_p3()
    converted = np.asarray(in_srgb(image, tmp_path / "a.png"))
    assert np.array_equal(converted[..., 3], pixels[..., 3])
    assert not np.array_equal(converted[..., :3], pixels[..., :3])
    assert not caplog.messages
    image.info["icc_profile"] = b"broken"
    assert in_srgb(image, tmp_path / "b.png") is image
    assert "b.png: its colour profile cannot be applied" in caplog.text


# ---- files of other systems


def test_paths_of_other_systems_are_found(tmp_path):
    write_box(tmp_path / "images" / "1.png", (8, 8), (0, 0, 8, 8))
    expected = tmp_path / "images" / "1.png"
    for stated in (
        "images/1.png", "./images/1.png", r".\images\1.png", r"images\1", "images/1",
        r"C:\Users\me\chair\images\1.png", "C:/Users/me/chair/images/1.png", "/home/me/chair/images/1.png",
    ):  # fmt: skip
        assert find_stated(tmp_path, stated).resolve() == expected.resolve(), stated
    assert find_stated(tmp_path, "images/2") == tmp_path / "images" / "2.png"  # for the error


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("write", ["write_transforms", "write_colmap", "write_cameras_json"])
def test_byte_order_marks_are_read(tmp_path, write, encoding):
    shoot = Shoot.of(size=(16, 16))
    for name in ("plain", "marked"):
        getattr(shoot, write)(tmp_path / name)
    for path in (tmp_path / "marked").rglob("*"):
        if path.suffix in (".json", ".txt"):
            path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    plain, marked = load(tmp_path / "plain"), load(tmp_path / "marked")
    assert np.array_equal(plain.cameras.c2w, marked.cameras.c2w)


def test_images_txt_without_its_blank_lines_keeps_every_view(tmp_path):
    shoot = Shoot.of(size=(16, 16))
    for name in ("plain", "dense", "bare"):
        shoot.write_colmap(tmp_path / name)
    for name, keep in (("dense", lambda line: line), ("bare", lambda line: line.endswith(".png"))):
        path = tmp_path / name / "sparse" / "0" / "images.txt"
        path.write_text("\n".join(filter(keep, path.read_text().splitlines())))
    plain = load(tmp_path / "plain")
    assert plain.cameras.num_views == 4
    for name in ("dense", "bare"):
        assert np.array_equal(load(tmp_path / name).cameras.c2w, plain.cameras.c2w)


def test_masks_become_alpha(tmp_path):
    """nerfstudio's mask_path, and COLMAP's folder of masks; at another resolution, of 0 and 1, or 255."""
    shoot = Shoot.of()
    folder = shoot.without_alpha().write_transforms(tmp_path / "nerfstudio")
    colmap = shoot.without_alpha().write_colmap(tmp_path / "colmap")
    content = json.loads((folder / "transforms.json").read_text())
    for view, frame in enumerate(content["frames"]):
        solid = (shoot.rgba[view][..., 3] >= 128).astype(np.uint8)
        frame["mask_path"] = f"masks\\{view}.png"
        for place, name in ((folder, f"{view}.png"), (colmap, f"{view:03d}.png.png")):
            (place / "masks").mkdir(exist_ok=True)
            mask = Image.fromarray(solid * (1 if view == 1 else 255))
            size = (128, 128) if view == 2 else mask.size
            mask.resize(size, Image.Resampling.NEAREST).save(place / "masks" / name)
    (folder / "transforms.json").write_text(json.dumps(content))
    for place in (folder, colmap):
        found = load(place)
        assert [photo.image.mask is None for photo in found._capture.photos] == [False] * 4
        for view, photo in enumerate(found._capture.photos):
            rgba, has_alpha = photo.image.read()
            assert has_alpha
            assert np.abs(rgba[..., 3].astype(int) - 255 * (shoot.rgba[view][..., 3] >= 128)).mean() < 6
    Image.new("L", (30, 90)).save(folder / "masks" / "0.png")
    with pytest.raises(BrokenSample, match=r"masks.*0.png has 30 × 90 pixels"):
        load(folder)


def test_distortion_params_are_nerfstudios(tmp_path):
    shoot = Shoot.of(size=(16, 16))
    folder = shoot.write_transforms(tmp_path / "set")
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"][1]["distortion_params"] = [0.1, -0.02, 0.0, 0.0, 0.003, -0.004]
    content["camera_model"] = "opencv"
    (folder / "transforms.json").write_text(json.dumps(content))
    lenses = [photo.lens.distortion for photo in load(folder)._capture.photos]
    assert lenses == [(0, 0, 0, 0), (0.1, -0.02, 0.003, -0.004), (0, 0, 0, 0), (0, 0, 0, 0)]


def test_a_phones_heic_is_read_or_named(tmp_path):
    write_box(tmp_path / "0.png", (16, 16), (4, 4, 12, 12))
    path = tmp_path / "1.heic"
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        path.write_bytes(b"\0\0\0\x18ftypheic")
        with pytest.raises(BrokenSample, match=r"1.heic needs pillow-heif to be read: pip install"):
            load(tmp_path, azimuths_deg=[0, 180])
        return
    register_heif_opener()
    buffer = io.BytesIO()
    Image.open(tmp_path / "0.png").save(buffer, "HEIF")
    path.write_bytes(buffer.getvalue())
    assert load(tmp_path, azimuths_deg=[0, 180]).cameras.num_views == 2
