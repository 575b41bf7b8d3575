"""Photographs with cameras of any lens, in any world, become renders as data_tools.render makes them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.adapt import command as adapt
from data_tools.pack import command as pack
from data_tools.shared.shard_reader import read_samples
from data_tools.verify import command as verify
from lgm.data.schema.sample import parse_cameras
from lgm.data.sources.images.background import Keep
from lgm.data.sources.images.source import ImagesSource
from tests.own_images import Shoot, some_similarity

AROUND = ([(-15.0, 10.0, 35.0)[view % 3] for view in range(12)], [30.0 * view for view in range(12)])


def photographed(seed: int = 0, **options) -> Shoot:
    """In a world of its own, with a lens and a shape of images that no shard can say."""
    options = {"size": (96, 72), "center": (0.52, 0.5), **options}
    return Shoot.of(AROUND, 2.0, 40.0, world=some_similarity(seed=seed), seed=seed, **options)


@pytest.mark.parametrize(
    ("layout", "write"), [("colmap", "write_colmap"), ("transforms", "write_transforms")]
)
def test_photographs_are_seen_through_cameras_that_look_at_the_object(tmp_path, capsys, layout, write):
    shoot = photographed()
    getattr(shoot, write)(tmp_path / "posed" / "cup")
    renders, shards = str(tmp_path / "renders"), tmp_path / "shards"
    adapt.main([str(tmp_path / "posed"), "--layout", layout, "--out", renders, "--workers", "1"])
    pack.main([renders, "--out", str(shards), "--format", "png", "--workers", "1"])
    assert (
        "1 without canonical views (elevation 0, azimuth 0, 90, 180, 270): train with data/views=random or "
        "orthogonal_random, and protocol=own_images" in capsys.readouterr().out
    )
    assert verify.main([str(shards), "--workers", "1"]) == 0
    (sample,) = read_samples(shards / "train-000000.tar")
    record = parse_cameras(sample.files["cameras.json"], sample.uid)
    assert record.canonical_inputs == ()
    centers = record.c2w[:, :3, 3]
    np.testing.assert_allclose(
        record.c2w[:, :3, 2], -centers / np.linalg.norm(centers, axis=1)[:, None], atol=1e-6
    )
    # What the object itself looks like from there: up to a turn about +y, and its size.
    scale = np.linalg.norm(centers, axis=1) / np.linalg.norm(shoot.cameras.c2w[:, :3, 3].numpy(), axis=1)
    np.testing.assert_allclose(scale, scale[0], rtol=1e-2)
    alphas = np.stack([np.asarray(Image.open(io.BytesIO(file)))[..., 3] for file in sample.images.values()])
    assert (alphas.max(axis=(1, 2)) == 255).all()
    edge = np.concatenate([alphas[:, 0], alphas[:, -1], alphas[:, :, 0], alphas[:, :, -1]], axis=1)
    assert edge.max() < 128, "whole objects stay whole"
    widest = max(np.ptp(np.nonzero(alpha >= 128), axis=1).max() for alpha in alphas)
    assert 0.6 < widest / alphas.shape[1] < 1.0


def test_photographs_become_what_data_images_makes_of_them(tmp_path):
    """One reader, one framing: the same cameras, and the same pixels where the resolution is the same."""
    folder = photographed().write_colmap(tmp_path / "posed" / "cup")
    adapted_to(tmp_path / "posed", tmp_path / "out")
    own = ImagesSource(str(folder), Keep()).load(0, 0)
    record = parse_cameras((tmp_path / "out/cup/cameras.json").read_bytes(), "cup")
    np.testing.assert_allclose(record.c2w, own.cameras.c2w, atol=1e-8)
    assert record.fov_y_deg == own.cameras.fov_y_deg
    image = np.asarray(Image.open(tmp_path / "out" / "cup" / "view_003.png"))
    np.testing.assert_array_equal(image, own.decode([3])[0])


def adapted_to(folder: Path, out: Path, *options: str) -> int:
    return adapt.main([str(folder), "--layout", "colmap", "--out", str(out), "--workers", "1", *options])


def test_distortion_is_taken_out_and_masks_become_alphas(tmp_path):
    plain = photographed(size=(72, 72), center=(0.5, 0.5))
    K = plain.cameras.intrinsics(72, 72)[0].tolist()
    bent = f"OPENCV 72 72 {K[0][0]} {K[1][1]} {K[0][2]} {K[1][2]} 0.2 0 0 0"
    plain.write_colmap(tmp_path / "bent" / "cup", bent)
    folder = plain.without_alpha().write_colmap(tmp_path / "masked" / "cup")
    (folder / "masks").mkdir()
    for view, rgba in enumerate(plain.rgba):
        Image.fromarray(rgba[..., 3]).save(folder / "masks" / f"{view:03d}.png.png")
    images = {}
    for name in ("bent", "masked"):
        assert adapted_to(tmp_path / name, tmp_path / f"{name}_out", "--resolution", "64") == 0
        images[name] = np.asarray(Image.open(tmp_path / f"{name}_out" / "cup" / "view_000.png"))
        assert images[name].shape == (64, 64, 4)
    assert images["masked"][..., 3].max() == 255 and images["masked"][0, 0, 3] == 0
    assert np.abs(images["bent"].astype(int) - images["masked"]).mean() > 1, "the lens counts"


def without_alphas(folder: Path) -> None:
    for path in (folder / "images").iterdir():
        Image.open(path).convert("RGB").save(path)


def fisheye(folder: Path) -> None:
    path = folder / "sparse" / "0" / "cameras.txt"
    path.write_text(path.read_text().replace("PINHOLE", "OPENCV_FISHEYE"))


def binary(folder: Path) -> None:
    for name in ("cameras", "images"):
        (folder / "sparse" / "0" / f"{name}.txt").rename(folder / "sparse" / "0" / f"{name}.bin")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_alphas, r"000.png has no alpha and no mask, .*; write a mask .*\(masks/000.png.png\)"),
        (fisheye, r"lens model OPENCV_FISHEYE is not read, only .*; colmap image_undistorter"),
        (binary, r"is a binary COLMAP model; colmap model_converter"),
        (lambda folder: (folder / "images" / "005.png").unlink(), "005.png, which the COLMAP model names"),
    ],
)
def test_photographs_of_no_use_are_one_line_and_the_others_are_adapted(tmp_path, capsys, spoil, reason):
    for seed, name in enumerate(("cup", "hat")):
        photographed(seed).write_colmap(tmp_path / "posed" / name)
    spoil(tmp_path / "posed" / "cup")
    assert adapted_to(tmp_path / "posed", tmp_path / "out") == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("failed")]
    assert re.search(reason, line), line
    assert "1 adapted, 0 complete before, 1 failed" in said


def test_images_that_are_enlarged_are_said(tmp_path, capsys):
    photographed().write_colmap(tmp_path / "posed" / "cup")
    assert adapted_to(tmp_path / "posed", tmp_path / "out", "--resolution", "128") == 0
    said = capsys.readouterr().out
    assert re.search(r"cup: its images show the object in about \d+ pixels and are enlarged to 128\n", said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layout", "colmap", "--fov", "50"), "--fov has no effect on this layout"),
        (("--layout", "colmap", "--resolution", "0"), "--resolution 0 must lie between 1 and"),
        (("--layout", "colmap", "--up", "0", "0", "0"), r"--up \[0.0, 0.0, 0.0\] must be a direction"),
        (("--layout", "lgm", "--up", "0", "0", "1"), "--up has no effect on --layout lgm"),
        (("--layout", "lgm", "--resolution", "64"), "--resolution has no effect on --layout lgm"),
    ],
)
def test_options_of_other_layouts_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        adapt.main([str(tmp_path), "--out", str(tmp_path / "renders"), *options])


def test_up_is_the_persons(tmp_path):
    shoot = photographed()
    shoot.write_colmap(tmp_path / "posed" / "cup")
    up = shoot.world[:3, :3] @ [0.0, 1.0, 0.0]
    assert adapted_to(tmp_path / "posed", tmp_path / "out", "--up", *map(str, up)) == 0
    record = parse_cameras((tmp_path / "out/cup/cameras.json").read_bytes(), "cup")
    elevation = np.degrees(np.arcsin(record.c2w[:, 1, 3] / np.linalg.norm(record.c2w[:, :3, 3], axis=1)))
    np.testing.assert_allclose(elevation, AROUND[0], atol=1e-3)
