"""Mesh to image: conventions in numbers, materials, and runs that are cut off or meet bad files."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")
pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")

import trimesh

from data_tools.engines import EngineUnavailable, make_engine
from data_tools.engines.extent import Extent
from data_tools.pack import command as pack
from data_tools.render import command as render
from data_tools.shared.plan import make_plan
from data_tools.shared.variants import part_uids
from lgm.cameras import Cameras
from lgm.data.schema.sample import check_sample

RESOLUTION = 128
MARKERS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


@pytest.fixture(scope="module")
def engine():
    try:
        made = make_engine("opengl")
    except EngineUnavailable as error:
        pytest.skip(str(error))
    yield made
    made.close()


def draw(engine, path: Path, num_views: int = 4, **plan_options) -> list[np.ndarray]:
    plan = make_plan(resolution=RESOLUTION, num_views=num_views, **plan_options)
    return list(engine.render(path, plan)[0])


def test_engines_beside_each_other_draw_what_each_draws_alone(engine, markers, tmp_path):
    """Between the views of one, others draw, are closed, and are collected as garbage."""
    octahedron((0, 0, 0), 0.5, (255, 255, 0)).export(tmp_path / "other.ply")
    alone = draw(engine, markers)
    plan, together = make_plan(resolution=RESOLUTION, num_views=4), []
    for view in engine.render(markers, plan)[0]:
        together.append(view)
        other = make_engine("opengl")
        draw(other, tmp_path / "other.ply")
        if len(together) % 2:
            other.close()
        del other
        gc.collect()
    assert all(np.array_equal(one, two) for one, two in zip(alone, together, strict=True))


def octahedron(center, radius: float, color) -> trimesh.Trimesh:
    """Its corners lie on the axes, so that its extent along them is exact."""
    corners = np.concatenate([np.eye(3), -np.eye(3)]) * radius + center
    faces = [[a, b, c] for a in (0, 3) for b in (1, 4) for c in (2, 5)]
    mesh = trimesh.Trimesh(corners, faces, process=False)
    mesh.visual.vertex_colors = np.array([*color, 255], dtype=np.uint8)
    return mesh


@pytest.fixture(scope="module")
def markers(tmp_path_factory) -> Path:
    """Red at +x, green at +y, blue at +z, grey opposite; already centred, farthest vertex at 0.6."""
    parts = []
    for name, axis in MARKERS.items():
        color = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}[name]
        parts.append(octahedron(np.array(axis) * 0.56, 0.04, color))
        parts.append(octahedron(np.array(axis) * -0.56, 0.04, (128, 128, 128)))
    path = tmp_path_factory.mktemp("markers") / "markers.ply"
    trimesh.util.concatenate(parts).export(path)
    return path


def find_color(image: np.ndarray, name: str) -> np.ndarray:
    """Centres (x, y) in pixels of what has this colour, or an empty array."""
    channel = list(MARKERS).index(name)
    others = [c for c in range(3) if c != channel]
    mask = (image[..., channel] > 60) & (image[..., others].max(-1) < 30) & (image[..., 3] > 128)
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5]) if len(rows) > 3 else np.array([])


def test_front_view_has_x_right_and_y_up(engine, markers):
    front, from_x, back, from_minus_x = draw(engine, markers)
    middle = RESOLUTION / 2
    assert find_color(front, "red")[0] > middle + 30
    assert find_color(front, "green")[1] < middle - 30
    np.testing.assert_allclose(find_color(front, "blue"), middle, atol=1)
    # From azimuth 90 the camera stands on +x: red is nearest, blue (+z) lies to the left.
    np.testing.assert_allclose(find_color(from_x, "red"), middle, atol=1)
    assert find_color(from_x, "blue")[0] < middle - 30
    assert find_color(back, "red")[0] < middle - 30
    assert find_color(from_minus_x, "blue")[0] > middle + 30


def test_points_land_where_the_cameras_say(engine, markers):
    plan = make_plan(resolution=RESOLUTION, num_views=24)
    cameras = Cameras.from_fov(torch.tensor(plan.c2w), plan.fov_y_deg)
    K, w2c = cameras.intrinsics(RESOLUTION, RESOLUTION), cameras.w2c
    compared = 0
    for view, image in enumerate(draw(engine, markers, 24)):
        ends = {s: [np.array(axis) * 0.56 * s for axis in MARKERS.values()] for s in (1, -1)}
        points = torch.tensor(np.array(ends[1] + ends[-1]))
        in_camera = points @ w2c[view, :3, :3].T + w2c[view, :3, 3]
        pixels = in_camera @ K[view].T
        pixels = (pixels[:, :2] / pixels[:, 2:]).numpy()
        for number, name in enumerate(MARKERS):
            distance = np.linalg.norm(pixels - pixels[number], axis=1)
            if np.sort(distance)[1] < 14:
                continue  # another marker may cover this one
            found = find_color(image, name)
            assert np.linalg.norm(found - pixels[number]) < 1.0, (view, name)
            compared += 1
    assert compared > 50


def test_z_up_files_stand_upright(engine, markers):
    front = draw(engine, markers, up="z")[0]
    assert find_color(front, "blue")[1] < RESOLUTION / 2 - 30
    assert find_color(front, "red")[0] > RESOLUTION / 2 + 30


def test_sphere_is_never_cut_off_and_box_cube_is(engine, tmp_path):
    trimesh.creation.box().export(tmp_path / "a.stl")
    border = [np.s_[0, :, 3], np.s_[-1, :, 3], np.s_[:, 0, 3], np.s_[:, -1, 3]]
    for image in draw(engine, tmp_path / "a.stl", 12):
        assert all(image[edge].max() == 0 for edge in border) and image[..., 3].max() == 255
    image = draw(engine, tmp_path / "a.stl", normalize="box")[0]
    assert image[0, :, 3].max() == 255


def test_no_side_is_black_and_white_is_not_burnt_out(engine, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=3)
    ball.visual.vertex_colors = [255, 255, 255, 255]
    ball.export(tmp_path / "ball.ply")
    for image in draw(engine, tmp_path / "ball.ply", 12):
        inside = image[image[..., 3] == 255][:, :3]
        assert inside.min() > 130
        assert (inside == 255).mean() < 0.02


def textured_quads(folder: Path, alpha: int = 255) -> Path:
    """Left half: an image, red above and green below; right half: a plain blue material."""
    pixels = np.zeros((64, 64, 4), dtype=np.uint8)
    pixels[:32], pixels[32:] = (255, 0, 0, 255), (0, 255, 0, alpha)
    Image.fromarray(pixels).save(folder / "image.png")
    (folder / "a.mtl").write_text("newmtl p\nKd 0 0 0\nmap_Kd image.png\nnewmtl b\nKd 0 0 1\n")
    (folder / "a.obj").write_text(
        "mtllib a.mtl\nv -1 -1 0\nv 0 -1 0\nv 0 1 0\nv -1 1 0\nv 1 -1 0\nv 1 1 0\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl p\nf 1/1 2/2 3/3 4/4\nusemtl b\nf 3 6 5 2\n"
    )
    return folder / "a.obj"


def test_textures_and_several_materials_from_both_sides(engine, tmp_path):
    front, _, back, _ = draw(engine, textured_quads(tmp_path))
    for image, left, right in ((front, 45, 83), (back, 83, 45)):
        assert image[45, left, :3].argmax() == 0 and image[45, left, 1] < 20
        assert image[83, left, :3].argmax() == 1 and image[83, left, 0] < 20
        # The blue face is wound the other way round: it must be drawn, and lit, all the same.
        assert image[45, right, :3].argmax() == 2 and image[45, right, 2] > 150
        assert (image[[45, 83], :, 3].max(axis=1) == 255).all()


def test_alpha_cuts_out_or_blends(engine, tmp_path):
    cut = draw(engine, textured_quads(tmp_path, alpha=0))[0]
    assert cut[45, 45, 3] == 255 and cut[83, 45, 3] == 0
    blended = draw(engine, textured_quads(tmp_path, alpha=128))[0]
    assert blended[45, 45, 3] == 255 and abs(int(blended[83, 45, 3]) - 128) <= 2
    assert blended[83, 45, 1] > 150, "straight alpha: the colour itself is not darkened"


def test_translucent_layers_add_up(engine, tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl g\nKd 1 1 1\nd 0.5\n")
    square = "".join(f"v {x} {y} {z}\n" for z in (0, -0.5) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1)))
    (tmp_path / "a.obj").write_text("mtllib a.mtl\n" + square + "usemtl g\nf 1 2 3 4\nf 5 6 7 8\n")
    assert abs(int(draw(engine, tmp_path / "a.obj")[0][64, 64, 3]) - 191) <= 2


def test_gltf_colours_are_linear_and_emission_glows(engine, tmp_path):
    box = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0, 0, 0, 255], emissiveFactor=[0.5, 0, 0])
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    box.export(tmp_path / "a.glb")
    np.testing.assert_allclose(draw(engine, tmp_path / "a.glb")[0][64, 64], [188, 0, 0, 255], atol=1)


def test_outline_is_smooth_and_keeps_its_colour(engine, markers):
    image = draw(engine, markers)[0]
    edge = (image[..., 3] > 30) & (image[..., 3] < 220) & (image[..., 1] > 60)
    edge &= image[..., [0, 2]].max(-1) < 30
    assert edge.sum() > 4
    assert image[edge][:, 1].min() > 100, "black from the background got into the green outline"


def run(tmp_path: Path, *options: str) -> int:
    arguments = [str(tmp_path / "meshes"), "--out", str(tmp_path / "renders"), "--workers", "1"]
    return render.main([*arguments, "--resolution", "32", "--views", "6", *options])


def test_run_reports_bad_meshes_resumes_and_refuses_other_settings(engine, tmp_path, capsys):
    meshes, renders = tmp_path / "meshes", tmp_path / "renders"
    (meshes / "more").mkdir(parents=True)
    trimesh.creation.box().export(meshes / "good.ply")
    trimesh.creation.icosphere().export(meshes / "more" / "ball.glb")
    (meshes / "empty.obj").write_text("")
    (meshes / "broken.glb").write_bytes(b"glTF nonsense")
    (meshes / "glass.mtl").write_text("newmtl g\nd 0\n")
    (meshes / "glass.obj").write_text("mtllib glass.mtl\nusemtl g\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    # A run that was cut off left this behind.
    (renders / "good").mkdir(parents=True)
    (renders / "good" / "view_000.png").write_bytes(b"half")
    assert run(tmp_path) == 0
    output = capsys.readouterr().out
    assert "failed empty: empty file" in output
    assert "failed broken: unreadable GLB" in output
    assert "failed glass: nothing visible" in output
    assert "2 rendered, 0 complete before, 3 failed" in output
    report = [json.loads(line) for line in (renders / "report.jsonl").read_text().splitlines()]
    assert {line["uid"] for line in report if line["status"] == "failed"} == {"empty", "broken", "glass"}
    assert not list((renders / ".partial").iterdir())

    folders = sorted(p for p in renders.iterdir() if (p / "cameras.json").is_file())
    assert len(folders) == 2
    for folder in folders:
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
        record = check_sample(files, folder.name)
        cameras = Cameras.from_fov(torch.tensor(record.c2w), record.fov_y_deg)
        np.testing.assert_allclose(cameras.elevation_deg[:4], 0, atol=1e-4)
        np.testing.assert_allclose(cameras.azimuth_deg[:4], [0, 90, 180, 270], atol=1e-4)
        np.testing.assert_allclose(cameras.centers.norm(dim=-1), 1.5, atol=1e-6)
        assert record.canonical_inputs == (0, 1, 2, 3)
        assert Image.open(folder / "view_005.png").mode == "RGBA"

    (folders[0] / "view_003.png").unlink()
    # What a sidecar says later reaches what is finished.
    (meshes / "more" / "ball.meta.json").write_text('{"group": "g", "author": "Ann"}')
    for name in ("empty.obj", "broken.glb", "glass.obj"):
        (meshes / name).unlink()
    assert run(tmp_path) == 0
    assert "1 rendered, 1 complete before, 0 failed" in capsys.readouterr().out
    metadata = json.loads((folders[1] / "meta.json").read_text())
    assert (metadata["group"], metadata["author"]) == ("g", "Ann")
    with pytest.raises(ValueError, match="rendered with resolution=32, now 64"):
        run(tmp_path, "--resolution", "64")


def test_nothing_lies_outside_the_rectangle_that_is_averaged(engine, tmp_path, monkeypatch):
    """The same images as without it, for objects of any shape, one after another."""
    meshes = []
    for number, size in enumerate(([1, 1, 1], [0.01, 1, 0.02], [1, 0.001, 1], [0.3, 1, 0.1])):
        mesh = trimesh.creation.icosphere(2) if number == 0 else trimesh.creation.box(size)
        mesh.export(tmp_path / f"{number}.ply")
        meshes.append(tmp_path / f"{number}.ply")
    for normalize in ("sphere", "box"):
        quick = [draw(engine, path, 12, normalize=normalize) for path in meshes]
        with monkeypatch.context() as patch:
            patch.setattr(Extent, "pixels", lambda self, clip, resolution: (0, 0, resolution, resolution))
            whole = [draw(engine, path, 12, normalize=normalize) for path in meshes]
        np.testing.assert_array_equal(quick, whole)


def test_nothing_rendered_is_a_failure(engine, tmp_path, capsys):
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "a.obj").write_text("")
    assert run(tmp_path) == 1
    assert "0 rendered, 0 complete before, 1 failed" in capsys.readouterr().out


def test_a_folder_without_meshes_is_named(engine, tmp_path, capsys):
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "a.fbx").write_text("")
    assert run(tmp_path) == 1
    output = capsys.readouterr().out
    assert f"no mesh in {tmp_path / 'meshes'}: .obj, " in output and ".fbx 1" in output


def test_parts_share_the_work(engine, tmp_path, capsys):
    (tmp_path / "meshes").mkdir()
    for i in range(6):
        shutil.copy(_box(tmp_path), tmp_path / "meshes" / f"box{i}.ply")
    assert run(tmp_path, "--part", "1/2") == 0
    assert run(tmp_path, "--part", "2/2") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert sum(int(line.split()[0]) for line in (first, second)) == 6
    assert all(line.split()[0] != "0" for line in (first, second))


def _box(folder: Path) -> Path:
    trimesh.creation.box().export(folder / "box.ply")
    return folder / "box.ply"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "povray"), "--engine 'povray' is unknown; use one of opengl"),
        (("--engine", "json.JSONDecoder"), "no subclass"),
        (("--views", "3"), "--views 3 is too few"),
        (("--part", "3/2"), "--part '3/2' must be k/n"),
        (("--radius", "0.5"), "--radius 0.5 stands inside"),
    ],
)
def test_a_persons_mistake_is_one_line(tmp_path, options, message):
    (tmp_path / "meshes").mkdir()
    with pytest.raises(ValueError, match=message):
        run(tmp_path, *options)
    assert not (tmp_path / "renders").exists()


def test_variants_are_drawn_packed_and_gone_on_with(engine, tmp_path, capsys):
    meshes, renders = tmp_path / "meshes", tmp_path / "renders"
    meshes.mkdir()
    for name, size in (("a", (1, 1, 1)), ("b", (1, 2, 1)), ("c", (0.5, 1, 1))):
        trimesh.creation.box(size).export(meshes / f"{name}.ply")
    command = [str(meshes), "--out", str(renders), "--resolution", "32", "--views", "8", "--workers", "1"]
    assert render.main(command) == 0
    assert render.main([*command, "--variants", "2"]) == 0
    assert "6 rendered, 3 complete before" in capsys.readouterr().out
    assert render.main([*command, "--variants", "2"]) == 0
    assert "0 rendered, 9 complete before" in capsys.readouterr().out

    def width(uid: str) -> int:
        return int((np.asarray(Image.open(renders / uid / "view_000.png"))[..., 3].max(axis=0) > 0).sum())

    assert width("a") != width("a-variant1")
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("c val\na train\nb train\n")
    shards = tmp_path / "shards"
    splits = ["--splits", "train=0.5,val=0.5", "--assign", str(held_out)]
    assert pack.main([str(renders), "--out", str(shards), *splits]) == 0
    packed = [json.loads(line) for line in (shards / "objects.jsonl").read_text().splitlines()]
    in_train = {entry["uid"]: entry for entry in packed if entry["shard"].startswith("train")}
    assert [entry["uid"] for entry in packed if entry["shard"].startswith("val")] == ["c"]
    assert {"a", "b", "a-variant1", "b-variant1"} <= set(in_train)
    assert not any("c" in part_uids(entry) for entry in in_train.values())
    with pytest.raises(ValueError, match="--variants 100 must lie between 0 and 99"):
        render.main([*command, "--variants", "100"])
