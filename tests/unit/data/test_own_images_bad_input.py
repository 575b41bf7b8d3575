"""A person's mistakes with their own images: one line that names the file and the fault."""

import json
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

from lgm.data.sources.images.background import Keep, PlainWhite, Rembg
from lgm.data.sources.images.source import ImagesSource
from tests.own_images import Shoot

MANY = ([0.0] * 4 + [30.0], [0.0, 90.0, 180.0, 270.0, 45.0])


def fault(folder, background=None, **options) -> str:
    """What is said before anything long begins."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        ImagesSource(str(folder), background or Keep(), **options).check(64)
    text = str(caught.value)
    assert "\n" not in text
    return text


def transforms(tmp_path, change, **options):
    folder = Shoot.of(MANY, size=(32, 32)).write_transforms(tmp_path / "set", **options)
    content = json.loads((folder / "transforms.json").read_text())
    change(content)
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def cameras(tmp_path, change):
    folder = Shoot.of(MANY, size=(32, 32)).write_cameras_json(tmp_path / "set")
    content = json.loads((folder / "cameras.json").read_text())
    change(content)
    (folder / "cameras.json").write_text(json.dumps(content))
    return folder


def test_no_folder_and_no_images(tmp_path):
    assert "data.path" in fault(tmp_path / "no") and "does not exist" in fault(tmp_path / "no")
    assert "holds no images" in fault(tmp_path)
    (tmp_path / "photo.heic").write_bytes(b"")
    assert "1 images and no cameras" in fault(tmp_path)
    assert "is a file; give a folder" in fault(tmp_path / "photo.heic")


def test_two_images_of_different_sizes(tmp_path):
    Shoot.of(size=(32, 32)).write(tmp_path)
    Image.new("RGBA", (48, 32), (200, 0, 0, 255)).save(tmp_path / "002.png")
    text = fault(tmp_path, recenter=None)
    assert "000.png of 32 × 32" in text and "002.png of 48 × 32" in text and "data.recenter" in text
    ImagesSource(str(tmp_path), Keep(), recenter=0.2).check(64)  # each is cut to its object
    ImagesSource(str(tmp_path), Keep()).check(64)


def test_a_image_with_no_object(tmp_path):
    Shoot.of(size=(32, 32)).write(tmp_path)
    Image.new("RGBA", (32, 32), (200, 0, 0, 0)).save(tmp_path / "002.png")
    assert "002.png shows no object" in fault(tmp_path)
    Image.new("RGB", (32, 32), "white").save(tmp_path / "002.png")
    assert "002.png shows no object" in fault(tmp_path, PlainWhite())


def test_a_image_that_is_none(tmp_path):
    Shoot.of(size=(32, 32)).write(tmp_path)
    (tmp_path / "001.png").write_bytes(b"not an image")
    assert "001.png cannot be decoded" in fault(tmp_path)
    Shoot.of(size=(32, 32)).write(tmp_path)
    whole = (tmp_path / "003.png").read_bytes()
    (tmp_path / "003.png").write_bytes(whole[: len(whole) // 2])
    assert "003.png cannot be decoded" in fault(tmp_path)
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / "003.png")
    assert "003.png has more than 8 bits a channel" in fault(tmp_path)


def test_more_or_fewer_images_than_angles(tmp_path):
    Shoot.of(size=(32, 32)).write(tmp_path)
    (tmp_path / "003.png").unlink()
    text = fault(tmp_path)
    assert "has 3 images and no cameras" in text and "0, 90, 180, 270" in text and "azimuths_deg" in text


def test_cameras_that_do_not_fit_their_images(tmp_path):
    text = fault(cameras(tmp_path, lambda c: c["c2w"].pop()))
    assert "5 images, cameras.json 4 cameras" in text
    folder = tmp_path / "set"
    Shoot.of(MANY, size=(32, 32)).write_cameras_json(folder)
    Image.new("RGBA", (48, 32), (200, 0, 0, 255)).save(folder / "view_002.png")
    assert "view_002.png of 48 × 32" in fault(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: c["c2w"][1].__setitem__(3, float("nan")),
            "view 1: its c2w holds non-finite",
        ),
        (lambda c: c["c2w"].__setitem__(2, np.diag([1.0, -1, 1, 1]).ravel().tolist()), "view 2: .*mirrors"),
        (lambda c: c.pop("fov_y_deg"), "lacks a readable fov_y_deg"),
        (lambda c: c.pop("c2w"), "lacks a readable .*c2w"),
        (lambda c: c.update(convention="opengl"), "convention 'opengl'"),
    ],
)
def test_cameras_json(tmp_path, change, said):
    text = fault(cameras(tmp_path, change))
    assert re.search(said, text), text


def mirror(content):
    matrix = np.array(content["frames"][3]["transform_matrix"])
    matrix[:3, 0] *= -1
    content["frames"][3]["transform_matrix"] = matrix.tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: c["frames"][1]["transform_matrix"][0].__setitem__(3, float("nan")),
            "001.png: its c2w holds",
        ),
        (mirror, "003.png: c2w.*mirrors"),
        (lambda c: c["frames"][0]["transform_matrix"][0].__setitem__(0, 9.0), "000.png: c2w.*is no rotation"),
        (lambda c: c["frames"][2].pop("transform_matrix"), "frame 2 lacks transform_matrix"),
        (lambda c: c["frames"][2].pop("file_path"), "frame 2 lacks file_path"),
        (lambda c: c["frames"][2].update(file_path="images/none.png"), "none.png is missing"),
        (lambda c: c["frames"][2].update(file_path="images/../images/001.png"), "001.png more than once"),
        (lambda c: c["frames"][2].update(transform_matrix=[[1, 2], [3, 4]]), r"frame 2 .*shape \(2, 2\)"),
        (lambda c: c.pop("frames"), "lacks a list of frames"),
        (lambda c: c.update(frames=[]), "names no images"),
        (lambda c: c.pop("fl_x"), "lacks a lens: state fl_x, or camera_angle_x"),
        (lambda c: c.update(fl_x="wide"), "fl_x='wide' .*no number"),
        (lambda c: c.update(fl_x=-3.0), "focal lengths -3.0"),
        (lambda c: c.update(w=64.0), "32 × 32 pixels, .* says 64 × 32"),
        (lambda c: c.update(k3=0.1), "k3=0.1"),
        (lambda c: c.update(distortion_params=[0.1, 0.0, 0.2, 0.0, 0.0, 0.0]), "k3=0.2"),
        (lambda c: c.update(distortion_params=[0.1] * 12), "distortion_params="),
        (lambda c: c.update(distortion_params="none"), "distortion_params=none"),
        (lambda c: c.update(is_fisheye=True), "is_fisheye=True"),
        (lambda c: c.update(ftheta_p0=0.5), "ftheta_p0=0.5"),
        (lambda c: c.update(lens_mode="latlong"), "lens_mode=latlong"),
        (lambda c: c["frames"][1].update(mask_path="masks/1.png"), "mask_path=masks/1.png.* not exist"),
    ],
)
def test_transforms_json(tmp_path, change, said):
    text = fault(transforms(tmp_path, change))
    assert re.search(said, text), text


@pytest.mark.parametrize(
    "model",
    [
        "OPENCV_FISHEYE",
        "FISHEYE624",
        "ORTHOPHOTO",
        "VR180_L",
        "FULL_OPENCV",
        "EQUIRECTANGULAR",
        "of tomorrow",
    ],
)
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_lenses_that_are_not_known_are_not_read_as_pinholes(tmp_path, model, case):
    name = case(model)
    assert f"camera_model={name}" in fault(transforms(tmp_path, lambda c: c.update(camera_model=name)))
    content = json.loads((tmp_path / "set" / "transforms.json").read_text())
    content["frames"][3]["camera_model"] = content.pop("camera_model")
    (tmp_path / "set" / "transforms.json").write_text(json.dumps(content))
    assert f"frame 3 has camera_model={name}" in fault(tmp_path / "set")


def test_one_angle_for_images_of_different_sizes(tmp_path):
    folder = transforms(tmp_path, lambda c: None, lens={"camera_angle_x": 0.8})
    Image.new("RGBA", (48, 32), (200, 0, 0, 255)).save(folder / "images" / "002.png")
    assert "002.png of 48 × 32" in fault(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("cameras.txt", "PINHOLE", "FULL_OPENCV", "FULL_OPENCV is not read.*image_undistorter"),
        ("cameras.txt", "PINHOLE", "SIMPLE_PINHOLE", "4 parameters do not fit the lens model SIMPLE_PINHOLE"),
        ("cameras.txt", "1 PINHOLE", "7 PINHOLE", "names camera 1, which .* lacks"),
        ("images.txt", "003.png", "none.png", "none.png, which the COLMAP model names"),
        ("images.txt", "003.png", "002.png", "names .*002.png more than once"),
        ("images.txt", " 1 002.png", "", "line 6 has 8 words"),
    ],
)
def test_colmap(tmp_path, file, old, new, said):
    folder = Shoot.of(MANY, size=(32, 32)).write_colmap(tmp_path / "set")
    path = folder / "sparse" / "0" / file
    path.write_text(path.read_text().replace(old, new))
    text = fault(folder)
    assert re.search(said, text), text


def test_a_binary_colmap_model_is_told_how_to_become_text(tmp_path):
    folder = Shoot.of(MANY, size=(32, 32)).write_colmap(tmp_path / "set")
    for name in ("cameras", "images"):
        (folder / "sparse" / "0" / f"{name}.txt").rename(folder / "sparse" / "0" / f"{name}.bin")
    assert "model_converter" in fault(folder)


def test_cameras_of_another_programs_axes(tmp_path):
    def flip(content):
        for frame in content["frames"]:
            matrix = np.array(frame["transform_matrix"]) @ np.diag([1.0, -1, -1, 1])
            frame["transform_matrix"] = matrix.tolist()

    assert "lies behind that of 000.png" in fault(transforms(tmp_path, flip))


def test_cameras_that_all_look_the_same_way(tmp_path):
    def same(content):
        for number, frame in enumerate(content["frames"]):
            frame["transform_matrix"] = content["frames"][0]["transform_matrix"]
            frame["transform_matrix"][1][3] = 0.001 * number

    assert "look the same way" in fault(transforms(tmp_path, same))


def test_options_without_effect_are_refused(tmp_path):
    folder = transforms(tmp_path, lambda c: None)
    assert "data.recenter=0.2 would move images whose cameras are known" in fault(folder, recenter=0.2)
    Shoot.of(size=(32, 32)).write(tmp_path / "ring")
    assert "data.up=[0.0, 0.0, 1.0] is of use only with cameras" in fault(tmp_path / "ring", up=[0, 0, 1])
    for options, said in (
        ({"recenter": 1.0}, "data.recenter=1.0"),
        ({"up": [0, 0, 0]}, "data.up="),
        ({"max_resolution": 0}, "data.max_resolution=0"),
        ({"split": "train"}, "no split 'train'"),
    ):
        assert said in fault(tmp_path / "ring", **options)


def test_one_bad_object_among_several_may_be_tolerated(tmp_path):
    for name in ("a", "b", "c"):
        Shoot.of(size=(32, 32)).write(tmp_path / name)
    (tmp_path / "b" / "001.png").unlink()
    assert "object 'b'" in fault(tmp_path)
    assert len(ImagesSource(str(tmp_path), Keep()).check(64, max_broken_fraction=0.5)) == 2


# ---- removing backgrounds


def test_without_rembg_a_image_without_alpha_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)  # as if it were not installed
    Shoot.of(size=(32, 32)).without_alpha().write(tmp_path)
    text = fault(tmp_path, Rembg())
    for word in ("000.png has no alpha", "pip install", "data/background=white", "data/background=keep"):
        assert word in text


def fake_rembg(monkeypatch, calls: list, fails: str | None = None) -> None:
    """What this program uses of it: `new_session` by a network's name, and `remove` of an image."""
    module = types.ModuleType("rembg")

    def new_session(name):
        if fails == "session":
            raise OSError("no network to fetch u2net.onnx from\nand more")
        return f"session of {name}"

    def remove(image, session=None):
        calls.append(session)
        if fails == "remove":
            raise RuntimeError("out of memory")
        rgba = np.array(image.convert("RGBA"))
        rgba[..., 3] = np.where((rgba[..., :3] < 245).any(axis=-1), 255, 0)
        return Image.fromarray(rgba)

    module.new_session, module.remove = new_session, remove
    monkeypatch.setitem(sys.modules, "rembg", module)


def test_rembg_cuts_each_image_once(tmp_path, monkeypatch):
    calls: list = []
    fake_rembg(monkeypatch, calls)
    Shoot.of(size=(32, 32)).without_alpha().write(tmp_path / "set")
    cache = str(tmp_path / "cache")
    first = ImagesSource(str(tmp_path / "set"), Rembg(cache_dir=cache)).load(0, 0).decode([0, 1, 2, 3])
    again = ImagesSource(str(tmp_path / "set"), Rembg(cache_dir=cache)).load(0, 0).decode([0, 1, 2, 3])
    assert calls == ["session of u2net"] * 4
    assert np.array_equal(first, again) and (first[..., 3] == 0).any() and (first[..., 3] == 255).any()
    ImagesSource(str(tmp_path / "set"), Rembg("isnet", cache_dir=cache)).load(0, 0)
    assert len(calls) == 8  # another network's results are its own


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("session", "rembg cannot load its network u2net: no network"),
        ("remove", "remove the background: out of"),
    ],
)
def test_rembg_that_fails_says_so(tmp_path, monkeypatch, fails, said):
    fake_rembg(monkeypatch, [], fails)
    Shoot.of(size=(32, 32)).without_alpha().write(tmp_path / "set")
    assert said in fault(tmp_path / "set", Rembg(cache_dir=str(tmp_path / "cache")))
