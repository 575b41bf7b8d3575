"""The bundled images, written as other programs lay theirs out, come back with the cameras they had; and
a wrong conversion does not get past the reprojection test."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.adapt import command as adapt
from data_tools.adapt.layouts import LAYOUTS, base, gobjaverse, lgm, nerf_synthetic, zero123
from data_tools.pack import command as pack
from data_tools.shared.shard_reader import read_samples
from data_tools.verify import command as verify
from lgm.cameras.conventions import opencv_to_opengl, y_up_to_z_up
from lgm.data.schema.sample import parse_cameras

SHARD = Path(verify.__file__).parents[2] / "lgm" / "assets" / "quickstart" / "train-000003.tar"
NUM_OBJECTS = 4


def posed() -> list[tuple[str, list[Image.Image], np.ndarray, float]]:
    found = []
    for sample in read_samples(SHARD):
        record = parse_cameras(sample.files["cameras.json"], sample.uid)
        images = [Image.open(io.BytesIO(content)).convert("RGBA") for content in sample.images.values()]
        found.append((sample.uid, images, record.c2w, record.fov_y_deg))
    return found


def to_z_up(c2w: np.ndarray) -> np.ndarray:
    return y_up_to_z_up(torch.from_numpy(c2w)).numpy()


def to_blender(c2w: np.ndarray) -> np.ndarray:
    return to_z_up(opencv_to_opengl(torch.from_numpy(c2w)).numpy())


def write_nerf_synthetic(folder: Path, images, c2w, fov_y_deg):
    (folder / "train").mkdir(parents=True)
    frames = []
    for view, (image, pose) in enumerate(zip(images, to_blender(c2w), strict=True)):
        image.save(folder / "train" / f"r_{view}.png")
        frames.append({"file_path": f"./train/r_{view}", "transform_matrix": pose.tolist()})
    content = {"camera_angle_x": math.radians(fov_y_deg), "frames": frames}
    (folder / "transforms_train.json").write_text(json.dumps(content))


def write_zero123(folder: Path, images, c2w, fov_y_deg):
    folder.mkdir(parents=True)
    for view, (image, pose) in enumerate(zip(images, to_blender(c2w), strict=True)):
        image.save(folder / f"{view:03d}.png")
        np.save(folder / f"{view:03d}.npy", np.linalg.inv(pose)[:3])


def write_lgm(folder: Path, images, c2w, fov_y_deg):
    (folder / "rgb").mkdir(parents=True)
    (folder / "pose").mkdir()
    for view, (image, pose) in enumerate(zip(images, to_z_up(c2w), strict=True)):
        image.save(folder / "rgb" / f"{view:03d}.png")
        (folder / "pose" / f"{view:03d}.txt").write_text(" ".join(map(str, pose.reshape(16))))


def write_gobjaverse(folder: Path, images, c2w, fov_y_deg, axes=to_z_up):
    for view, (image, pose) in enumerate(zip(images, axes(c2w), strict=True)):
        place = folder / f"{view:05d}"
        place.mkdir(parents=True)
        image.save(place / f"{view:05d}.png")
        columns = dict(zip(("x", "y", "z", "origin"), pose[:3].T.tolist(), strict=True))
        angle = math.radians(fov_y_deg)
        (place / f"{view:05d}.json").write_text(json.dumps({**columns, "x_fov": angle, "y_fov": angle}))


def write_gobjaverse_opengl(folder: Path, images, c2w, fov_y_deg):
    write_gobjaverse(folder, images, c2w, fov_y_deg, axes=to_blender)


WRITERS = {
    "nerf_synthetic": write_nerf_synthetic,
    "zero123": write_zero123,
    "lgm": write_lgm,
    "gobjaverse": write_gobjaverse,
}


def export(folder: Path, write) -> Path:
    for uid, images, c2w, fov_y_deg in posed():
        write(folder / "some" / uid, images, c2w, fov_y_deg)
    return folder


def adapt_and_pack(source: Path, layout: str, out: Path, *options: str) -> Path:
    assert adapt.main([str(source), "--layout", layout, "--out", str(out / "renders"), "--workers", "1"]) == 0
    packed = [str(out / "renders"), "--out", str(out / "shards"), "--format", "png", "--workers", "1"]
    pack.main([*packed, *options])
    return out / "shards"


@pytest.mark.parametrize(
    ("layout", "write"),
    [*WRITERS.items(), ("gobjaverse", write_gobjaverse_opengl)],
    ids=lambda x: str(x)[:24],
)
def test_a_layout_comes_back_with_its_cameras(tmp_path, capsys, layout, write):
    shards = adapt_and_pack(export(tmp_path / "posed", write), layout, tmp_path)
    assert f"{NUM_OBJECTS} adapted" in capsys.readouterr().out
    assert verify.main([str(shards), "--workers", "1"]) == 0
    assert f"cameras fit {NUM_OBJECTS} of {NUM_OBJECTS} tested" in capsys.readouterr().out
    before = {uid: (images, c2w, fov) for uid, images, c2w, fov in posed()}
    for sample in read_samples(shards / "train-000000.tar"):
        images, c2w, fov_y_deg = before[sample.uid.removeprefix("some_").rpartition("-")[0]]
        record = parse_cameras(sample.files["cameras.json"], sample.uid)
        np.testing.assert_allclose(record.c2w, c2w, atol=1e-6)
        assert record.canonical_inputs == (0, 1, 2, 3)
        assert record.fov_y_deg == pytest.approx(fov_y_deg, abs=0.05)
        packed = np.array(Image.open(io.BytesIO(sample.images[7])))
        np.testing.assert_array_equal(packed, np.array(images[7]))


def from_world_to_camera(c2w: np.ndarray) -> np.ndarray:
    return base.from_blender(np.linalg.inv(c2w))


WRONG = {
    "nerf_synthetic": (nerf_synthetic, "from_z_up", base.from_blender, "objects say 'OpenGL axes'"),
    "zero123": (
        zero123,
        "from_blender",
        lambda c2w: base.from_blender(np.linalg.inv(c2w)),
        "looked past each other",
    ),
    "lgm": (lgm, "from_z_up", base.from_blender, "objects say 'OpenGL axes'"),
    "gobjaverse": (
        gobjaverse,
        "from_z_up",
        lambda c2w: base.from_z_up(c2w) * [-1, -1, 1, 1],
        "objects say 'rolled'",
    ),
}


def test_every_layout_that_converts_poses_has_its_mistake():
    assert set(WRONG) == set(WRITERS) == {name for name, layout in LAYOUTS.items() if layout.keeps_pixels}


@pytest.mark.parametrize("layout", WRONG)
def test_a_wrong_conversion_is_found(tmp_path, capsys, monkeypatch, layout):
    source = export(tmp_path / "posed", WRITERS[layout])
    module, name, wrong, mistake = WRONG[layout]
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(
        ValueError, match=r"cameras of \d+ of \d+ objects do not fit their images: the set is"
    ):
        adapt_and_pack(source, layout, tmp_path / "refused")
    shards = adapt_and_pack(source, layout, tmp_path, "--no-reprojection")
    assert verify.main([str(shards), "--workers", "1"]) == 1
    assert mistake in capsys.readouterr().out


def test_pack_leaves_out_what_verify_would_fault(tmp_path, capsys):
    source = export(tmp_path / "posed", write_lgm)
    one, two = (sorted((source / "some").iterdir())[1] / "rgb" / f"{view:03d}.png" for view in (8, 15))
    one.rename(tmp_path / "kept.png")
    two.rename(one)
    (tmp_path / "kept.png").rename(two)
    shards = adapt_and_pack(source, "lgm", tmp_path)
    said = capsys.readouterr().out
    assert re.search(r"left out: object '.*': view \d+: its image .* which verify faults\n", said)
    assert len((shards / "objects.jsonl").read_text().splitlines()) == NUM_OBJECTS - 1
    assert verify.main([str(shards), "--workers", "1"]) == 0
    packed = [str(tmp_path / "renders"), "--workers", "1", "--format", "png"]
    with pytest.raises(ValueError, match="packed with reprojection=True, now False is asked for"):
        pack.main([*packed, "--out", str(shards), "--no-reprojection"])
    assert pack.main([*packed, "--out", str(tmp_path / "all"), "--no-reprojection"]) == 0
    assert verify.main([str(tmp_path / "all"), "--workers", "1"]) == 1


def test_a_wrong_field_of_view_is_found(tmp_path, capsys):
    source = export(tmp_path / "posed", write_lgm)
    arguments = [str(source), "--layout", "lgm", "--out", str(tmp_path / "renders"), "--workers", "1"]
    assert adapt.main([*arguments, "--fov", "40"]) == 0
    packed = [str(tmp_path / "renders"), "--out", str(tmp_path / "shards"), "--workers", "1"]
    pack.main([*packed, "--no-reprojection"])
    assert verify.main([str(tmp_path / "shards"), "--workers", "1"]) == 1
    assert "objects say 'fov +25 %'" in capsys.readouterr().out


def test_it_goes_on_and_names_what_it_cannot_read(tmp_path, capsys):
    source = export(tmp_path / "posed", write_zero123)
    arguments = [str(source), "--layout", "zero123", "--out", str(tmp_path / "renders"), "--workers", "1"]
    broken = sorted((source / "some").iterdir())[1]
    kept = (broken / "005.png").read_bytes()
    (broken / "005.png").unlink()
    assert adapt.main(arguments) == 0
    output = capsys.readouterr().out
    assert f"{broken / '005.png'} is missing" in output
    assert f"{NUM_OBJECTS - 1} adapted, 0 complete before, 1 failed" in output
    (broken / "005.png").write_bytes(kept)
    assert adapt.main(arguments) == 0
    assert f"1 adapted, {NUM_OBJECTS - 1} complete before, 0 failed" in capsys.readouterr().out


GARBAGE = {
    "zero123": (write_zero123, "005.npy", [b"", b"no numbers", b"\x80\x04."]),
    "lgm": (write_lgm, "pose/005.txt", [b"", b"1 2 three", b"\xff\xfe"]),
    "nerf_synthetic": (
        write_nerf_synthetic,
        "transforms.json",
        [b"", b"[]", b'{"frames": []}'],
    ),
    "gobjaverse": (write_gobjaverse, "00005/00005.json", [b"", b"[1]", b'{"x": [0]}']),
}


@pytest.mark.parametrize("layout", GARBAGE)
def test_garbage_is_named_and_the_others_are_adapted(tmp_path, capsys, layout):
    write, name, contents = GARBAGE[layout]
    source = export(tmp_path / "posed", write)
    folders = sorted((source / "some").iterdir())
    for folder, content in zip(folders, contents, strict=False):
        (folder / name).write_bytes(content)
    arguments = [str(source), "--layout", layout, "--out", str(tmp_path / "renders"), "--workers", "1"]
    assert adapt.main(arguments) == 0
    output = capsys.readouterr().out
    failed = [line for line in output.splitlines() if line.startswith("failed")]
    assert len(failed) == 3 and "1 adapted, 0 complete before, 3 failed" in output
    assert all(str(source / "some") in line or "has no views" in line for line in failed), failed


def test_views_without_the_four_have_no_canonical_inputs(tmp_path, capsys):
    _, images, c2w, fov_y_deg = posed()[0]
    write_lgm(tmp_path / "posed" / "thing", images[1:], c2w[1:], fov_y_deg)
    shards = adapt_and_pack(tmp_path / "posed", "lgm", tmp_path)
    (sample,) = read_samples(shards / "train-000000.tar")
    assert parse_cameras(sample.files["cameras.json"], sample.uid).canonical_inputs == ()
    capsys.readouterr()
    assert verify.main([str(shards), "--workers", "1"]) == 0
    assert "; 1 objects without canonical views; " in capsys.readouterr().out


def test_canonical_views_are_found_in_any_order():
    _, _, c2w, _ = posed()[0]
    order = np.random.default_rng(0).permutation(len(c2w))
    found = adapt.canonical_views(c2w[order])
    assert [order[view] for view in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layout", "lgm"), "holds no object laid out as 'lgm'"),
        (("--layout", "zero123", "--fov", "200"), "--fov 200, which is not between 0.1 and 170"),
    ],
)
def test_a_persons_mistake_is_one_line(tmp_path, options, message):
    (tmp_path / "posed").mkdir()
    with pytest.raises(ValueError, match=message):
        adapt.main([str(tmp_path / "posed"), "--out", str(tmp_path / "renders"), *options])
    assert not (tmp_path / "renders").exists()


def adapted(folder: Path, layout: str, out: Path, *options: str) -> tuple[float, list[str]]:
    """The field of view of the first object, and why others failed."""
    arguments = [str(folder), "--layout", layout, "--out", str(out), "--workers", "1", *options]
    if adapt.main(arguments):
        return 0.0, [json.loads(line)["reason"] for line in (out / "report.jsonl").open()]
    (cameras,) = out.glob("*/cameras.json")
    return json.loads(cameras.read_text())["fov_y_deg"], []


def one_scene(folder: Path, change=lambda content: content) -> Path:
    _, images, c2w, fov_y_deg = posed()[0]
    shutil.rmtree(folder / "a", ignore_errors=True)
    write_nerf_synthetic(folder / "a", images[:5], c2w[:5], fov_y_deg)
    path = folder / "a" / "transforms_train.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return folder


LENS = {"fl_x": 200.0, "fl_y": 200.0, "w": 128, "h": 128, "cx": 64.0, "cy": 64.0}


@pytest.mark.parametrize(("stated", "reason"), [
    ({"k1": 0.1}, "k1=0.1: undistort the images first"), ({"k3": 0.1}, "k3=0.1"),
    ({"cx": 70.0}, "has cx=70 of 128"),
    ({"distortion_params": [0.1, 0, 0, 0, 0, 0]}, "k1=0.1"), ({"fl_y": 210.0}, "focal lengths 200 and 210"),
    ({"camera_model": "OPENCV_FISHEYE"}, "camera_model=OPENCV_FISHEYE"),
])  # fmt: skip
def test_a_lens_that_a_shard_cannot_say_is_refused(tmp_path, stated, reason):
    one_scene(tmp_path, lambda content: {**content, **LENS, **stated})
    for options in ((), ("--fov", "40")):
        with pytest.raises(
            ValueError, match="holds no readable object of 1; the first, a: .*" + re.escape(reason)
        ):
            adapted(tmp_path, "nerf_synthetic", tmp_path / "out", *options)


def test_focal_lengths_and_angles_of_frames_are_read(tmp_path):
    one_scene(tmp_path, lambda content: {"frames": content["frames"], **LENS})
    expected = math.degrees(2 * math.atan(64 / 200))
    assert adapted(tmp_path, "nerf_synthetic", tmp_path / "out") == (pytest.approx(expected), [])
    one_scene(tmp_path, lambda content: {"frames": [{**f, "camera_angle_x": 0.6} for f in content["frames"]]})
    fov_y_deg, _ = adapted(tmp_path, "nerf_synthetic", tmp_path / "out2")
    assert fov_y_deg == pytest.approx(math.degrees(0.6))
    angles = iter([0.6, 0.6, 0.7, 0.6, 0.6])
    one_scene(tmp_path, lambda c: {"frames": [{**f, "camera_angle_x": next(angles)} for f in c["frames"]]})
    with pytest.raises(
        ValueError, match=r"fields of view from 34.38 to 40.11 degrees; views need one; give --fov"
    ):
        adapted(tmp_path, "nerf_synthetic", tmp_path / "out3")
    assert adapted(tmp_path, "nerf_synthetic", tmp_path / "out4", "--fov", "30") == (30.0, [])


@pytest.mark.parametrize("text", [
    "131.25 64. 64. 0.\n0. 0. 0.\n1.\n1.\n128 128\n", "131.25 0 64 0\n0 131.25 64 0\n0 0 1 0\n0 0 0 1\n",
])  # fmt: skip
def test_intrinsics_beside_poses_are_read(tmp_path, text):
    _, images, c2w, fov_y_deg = posed()[0]
    write_lgm(tmp_path / "a", images[:5], c2w[:5], fov_y_deg)
    (tmp_path / "a" / "intrinsics.txt").write_text(text)
    expected = math.degrees(2 * math.atan(64 / 131.25))
    assert adapted(tmp_path, "lgm", tmp_path / "out") == (pytest.approx(expected), [])
    for wrong, reason in ((text.replace("64", "50"), "has cx=50"), ("1 2 3 4 5", "neither SRN's"),
                          (text.replace("131.25", "1.02"), "focal length of 1.02")):  # fmt: skip
        (tmp_path / "a" / "intrinsics.txt").write_text(wrong)
        with pytest.raises(ValueError, match=reason):
            adapted(tmp_path, "lgm", tmp_path / "no")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_cameras_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    _, images, c2w, fov_y_deg = posed()[0]
    write_lgm(tmp_path / "a", images[:5], c2w[:5], fov_y_deg)
    (tmp_path / "a" / "intrinsics.txt").write_text("131.25 0 64 0 131.25 64 0 0 1")
    for path in (tmp_path / "a").rglob("*.txt"):
        path.write_text(path.read_text(), encoding)
    assert adapted(tmp_path, "lgm", tmp_path / "out")[1] == []


def test_an_image_measured_for_its_intrinsics_is_opened_as_every_other(tmp_path):
    _, images, c2w, fov_y_deg = posed()[0]
    write_lgm(tmp_path / "a", images[:5], c2w[:5], fov_y_deg)
    (tmp_path / "a" / "intrinsics.txt").write_text("131.25 0 64 0 131.25 64 0 0 1")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a" / "rgb" / "000.png")
    with pytest.raises(ValueError, match=r"000.png cannot be decoded: .*no PNG or"):
        adapted(tmp_path, "lgm", tmp_path / "out")


def test_intrinsics_that_a_layout_does_not_read_are_refused(tmp_path):
    _, images, c2w, fov_y_deg = posed()[0]
    write_zero123(tmp_path / "a", images[:5], c2w[:5], fov_y_deg)
    (tmp_path / "a" / "intrinsics.npy").touch()
    with pytest.raises(ValueError, match=r"intrinsics.npy is not read by this layout; give --fov"):
        adapted(tmp_path, "zero123", tmp_path / "out")


def test_grey_of_16_bits_stays_grey(tmp_path):
    _, images, c2w, fov_y_deg = posed()[0]
    write_lgm(tmp_path / "a", images[:5], c2w[:5], fov_y_deg)
    for path in (tmp_path / "a" / "rgb").iterdir():
        Image.fromarray(np.full((128, 128), 20_000, np.uint16)).save(path)
    assert adapted(tmp_path, "lgm", tmp_path / "out")[1] == []
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "out" / "a" / "view_000.png"))[0, 0], [78, 78, 78, 255]
    )
