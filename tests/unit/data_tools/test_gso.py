"""Google Scanned Objects in the hub's layout: unpacked, stood upright, rendered and packed for a protocol."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_tools.adapt import command as adapt
from data_tools.adapt.meshes.scanned_objects import find_tars, samples
from data_tools.gso import command as gso
from data_tools.gso.upright import up_axis
from data_tools.shared.plan import make_plan
from data_tools.shared.sources import find_meshes, read_metadata
from tests.datasets import write_shard
from tests.scanned_objects import scan, write_tars
from tests.unit.cameras.test_trajectories import protocol_views

KEYS = ["Red_Shoe", "a_Jenga-box", "Nesquik_Cocoa_Powder"]


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> Path:
    return write_tars(tmp_path_factory.mktemp("gso"), KEYS)


def unpack(tars: Path, out: Path, *options: str) -> int:
    return adapt.main([str(tars), "--layout", "gso", "--out", str(out), *options])


def test_meshes_with_names_licence_and_category(tars, tmp_path, capsys):
    assert unpack(tars, tmp_path) == 0
    output = capsys.readouterr().out
    assert "3 adapted, 0 failed" in output and "licences: CC-BY-4.0 3; 3 objects, 0 without" in output
    known = [read_metadata(source) for source in find_meshes([str(tmp_path)])]
    assert [entry["uid"] for entry in known] == sorted(KEYS)
    assert known[0] == {
        "uid": "Nesquik_Cocoa_Powder", "name": "Nesquik Cocoa Powder", "category": "Toys",
        "author": "Google LLC", "licence": "CC-BY-4.0",
        "source": "Google Scanned Objects: Nesquik_Cocoa_Powder",
    }  # fmt: skip
    original = dict(samples(find_tars(tars)[0], ["glb"]))["Red_Shoe"]["glb"]
    assert (tmp_path / "Red_Shoe.glb").read_bytes() == original
    assert "| Red_Shoe | Red Shoe | Google LLC | CC-BY-4.0 |" in (tmp_path / "ATTRIBUTION.md").read_text()


def test_a_tar_that_is_cut_off_gives_what_is_whole(tars, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    first, second = find_tars(tars)
    content = first.read_bytes()
    inside = content.index(b"a_Jenga-box.glb")
    (tmp_path / "data" / first.name).write_bytes(content[: inside + 2000])
    (tmp_path / "data" / second.name).write_bytes(second.read_bytes())
    assert unpack(tmp_path / "data", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "2 adapted, 1 failed" in output and "gso-train-00000.tar is cut off or broken" in output
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.glb")) == [
        "Nesquik_Cocoa_Powder",
        "Red_Shoe",
    ]
    (tmp_path / "data" / first.name).write_bytes(content)
    assert unpack(tmp_path / "data", tmp_path / "out") == 0
    assert "3 adapted, 0 failed" in capsys.readouterr().out


def test_what_is_no_mesh_is_named_and_nothing_else_is_lost(tmp_path, capsys):
    (tmp_path / "made").mkdir()
    whole = scan("whole", 0, tmp_path / "made")
    objects = [
        {"pointer.glb": b"version https://git-lfs.github.com/spec/v1\n", "pointer.json": b"{}"},
        {"bare.json": b'{"name": "x"}'},
        {**whole, "whole.json": b"[1"},
        {name.replace("whole", "other/../whole"): content for name, content in whole.items()},
    ]
    write_shard(tmp_path / "a.tar", objects)
    assert unpack(tmp_path / "a.tar", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert (
        "failed pointer: it is a Git LFS pointer" in output
        and "failed bare: its sample has no .glb" in output
    )
    assert "failed whole: another object of the set has the uid 'whole' too" in output
    assert read_metadata(next(find_meshes([str(tmp_path / "out")])))["licence"] == "CC-BY-4.0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "made", "out"]
    with pytest.raises(FileNotFoundError, match=r"holds no .tar"):
        unpack(tmp_path / "made", tmp_path / "other")


@pytest.mark.parametrize(("upright", "axis"), [(False, "z"), (True, "y")])
def test_which_axis_points_up_is_told_by_the_scan_beside_it(tmp_path, upright, axis):
    assert up_axis(find_tars(write_tars(tmp_path, KEYS, upright=upright))) == axis


def test_which_axis_points_up_is_asked_for_where_nothing_tells(tmp_path):
    (tmp_path / "made").mkdir()
    files = {name: content for name, content in scan("a", 0, tmp_path / "made").items() if name != "a.obj"}
    write_shard(tmp_path / "a.tar", [files])
    with pytest.raises(ValueError, match=r"cannot be told \(0 objects say y, 0 say z\): give --up z"):
        up_axis([tmp_path / "a.tar"])


@pytest.mark.parametrize(
    ("protocol", "fov", "views", "num_targets"),
    [
        ("gso_gslrm", 49.1, 68, 10),
        ("gso_grm", 50.0, 68, 60),
        ("gso_lara", 49.1, 44, 4),
        ("gso_lgm", 49.1, 104, 100),
    ],
)
def test_each_protocols_set_serves_it(tars, tmp_path, monkeypatch, capsys, protocol, fov, views, num_targets):
    ran = {}
    monkeypatch.setattr(gso.render, "main", lambda arguments: ran.update(render=arguments) or 0)
    monkeypatch.setattr(gso.pack, "main", lambda arguments: ran.update(pack=arguments) or 0)
    out = tmp_path / "out"
    assert gso.main([str(tars), "--protocol", protocol, "--out", str(out), "--objects", "2"]) == 0
    options = gso.render.parse_arguments(ran["render"])
    plan = make_plan(options.resolution, options.views, options.radius, options.fov, up=options.up,
                     trajectory=options.trajectory)  # fmt: skip
    assert (plan.fov_y_deg, plan.num_views, plan.resolution, plan.up) == (fov, views, 512, "z")
    choice = protocol_views(protocol).choose(plan.camera_record(), np.random.default_rng(0))
    assert len(choice.input) == 4 and len(choice.target) == num_targets
    assert not set(choice.input) & set(choice.target)
    meshes = list(find_meshes(options.inputs))
    assert len(meshes) == 2 and all(source.path.is_file() for source in meshes)
    assert options.out == out / protocol / "renders" and ran["pack"][:3] == [
        str(options.out), "--out", str(out / protocol / "shards"),
    ]  # fmt: skip
    assert capsys.readouterr().out.endswith(
        f"python evaluate.py ckpt=<checkpoint> data.path={out / protocol / 'shards'} protocol={protocol}\n"
    )


def test_inputs_stand_where_the_papers_put_them():
    cameras = make_plan(trajectory="instant3d").camera_record()
    places = cameras.c2w[
        list(protocol_views("gso_gslrm").choose(cameras, np.random.default_rng(0)).input), :3, 3
    ]
    elevation = np.degrees(np.arcsin(places[:, 1] / 1.5))
    azimuth = np.degrees(np.arctan2(places[:, 0], places[:, 2])) % 360
    np.testing.assert_allclose(elevation, 20, atol=1e-3)
    np.testing.assert_allclose(azimuth, [45, 135, 225, 315], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--objects", "0"], "--objects 0 must be at least 1"),
        (["--tars", "nowhere"], r"nowhere does not exist; fetch the data set's data/\*.tar"),
    ],
)
def test_mistakes_are_one_line(tars, tmp_path, options, match):
    place = options[1] if options[0] == "--tars" else str(tars)
    rest = [] if options[0] == "--tars" else options
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        gso.main([place, "--protocol", "gso_lgm", "--out", str(tmp_path), *rest])


def test_the_engines_code_ends_the_command(tars, tmp_path, monkeypatch):
    monkeypatch.setattr(gso.render, "main", lambda arguments: 1)
    monkeypatch.setattr(gso.pack, "main", lambda arguments: pytest.fail("nothing was rendered"))
    assert gso.main([str(tars), "--protocol", "gso_lgm", "--out", str(tmp_path), "--up", "y"]) == 1
    assert json.loads((tmp_path / "meshes" / "Red_Shoe.meta.json").read_text())["uid"] == "Red_Shoe"
