"""What may be named to be looked at, and what is refused in one line."""

import logging

import pytest
import torch
from PIL import Image

from lgm.gaussians.ply import load_ply, save_ply
from lgm.reports import input_cameras
from lgm.viewer.__main__ import main
from lgm.viewer.opening import open_objects
from tests.golden_files import GOLDEN
from tests.unit.viewer.scenes import cloud, inputs


@pytest.mark.parametrize(
    "name", ["gaussians.ply", "gsplat_compressed.ply", "gsplat_degree3.ply", "inria_degree3.ply"]
)
def test_files_of_3dgs_programs_open(name):
    shown = open_objects(str(GOLDEN / name))
    (only,) = shown.names
    assert torch.equal(shown.load(only).gaussians.means, load_ply(GOLDEN / name).means)


def test_a_folder_of_files_and_one_of_an_evaluation_open(tmp_path):
    for path in ("a.ply", "b.ply", "run/objects/chair/gaussians.ply", "run/objects/desk/gaussians.ply"):
        save_ply(cloud(3), tmp_path / path)
    assert open_objects(str(tmp_path)).names == ["a", "b"]
    assert open_objects(str(tmp_path / "run")).names == ["chair", "desk"]


def test_up_turns_files(tmp_path):
    scene = cloud(4)
    save_ply(scene, tmp_path / "z.ply", up="z")
    shown = open_objects(str(tmp_path / "z.ply"), up="z").load("z").gaussians
    assert torch.allclose(shown.means, scene.means, atol=1e-6)


def _mini_objects():
    return open_objects("mini", max_objects=2)


def test_weights_reconstruct_bundled_objects_and_show_what_they_saw():
    shown = _mini_objects()
    assert len(shown.names) == 2
    viewed = shown.load(shown.names[1])
    assert viewed.gaussians.opacities.max() > 0.5
    assert viewed.inputs.images.shape == (4, 128, 128, 3)
    assert torch.allclose(
        viewed.inputs.cameras.azimuth_deg.sort().values, torch.tensor([0.0, 90, 180, 270]), atol=0.1
    )


REFUSED = [
    (["nowhere.ply"], "no such file: nowhere.ply"),
    (["nowhere"], "no weights at nowhere"),
    (["."], "folder holds no .ply"),
    (["cut.ply"], "cut.ply cannot be read"),
    (["text.txt"], "text.txt is neither"),
    (["a.ply", "data=quickstart"], "data=quickstart would have no effect"),
    (["a.ply", "a.ply", "a.ply"], "give one, or two"),
    (["a.ply", "--port", "70000"], "--port=70000"),
    (["a.ply", "--max-gaussians", "0"], "--max-gaussians=0"),
    (["a.ply", "--host", "192.0.2.1"], "host=192.0.2.1"),
    (["mini", "--up", "z"], "--up=z would have no effect"),
    (["mini", "data=nothing"], "data/nothing"),
    (["mini", "protocl=x"], "protocl"),
    (["mini", "data.path=nothing"], "data.path=nothing has no index.json"),
]


@pytest.mark.parametrize(("arguments", "line"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_what_cannot_be_shown_is_one_line(arguments, line, tmp_path, monkeypatch, caplog):
    (tmp_path / "text.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    if "." not in arguments:
        save_ply(cloud(3), tmp_path / "a.ply")
        (tmp_path / "cut.ply").write_bytes((tmp_path / "a.ply").read_bytes()[:-20])
    with caplog.at_level(logging.ERROR):
        assert main(arguments) == 2
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line in record.getMessage()
    assert "\n" not in record.getMessage()


def test_an_evaluation_shows_its_inputs_where_they_stood(tmp_path):
    folder = tmp_path / "objects" / "chair"
    save_ply(cloud(3), folder / "gaussians.ply")
    given = inputs()
    (folder / "input_cameras.json").write_text(input_cameras.to_text(given.cameras))
    shown = open_objects(str(tmp_path))
    assert shown.load("chair").inputs.images is None
    for view, image in enumerate(given.images):
        Image.fromarray(image).save(folder / f"input_{view}.png")
    read = shown.load("chair").inputs
    assert torch.equal(read.cameras.c2w, given.cameras.c2w)
    assert (read.images == given.images).all()
    (folder / "input_cameras.json").write_text('{"c2w": 7}')
    broken = shown.load("chair")
    assert broken.inputs is None
    assert "input_cameras.json cannot be read" in broken.notes[0]
