"""Mesh files from anywhere: whatever is lost on the way has its reason. No graphics needed."""

from __future__ import annotations

import base64
import io
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")

import trimesh

from data_tools.engines.textures import texture_pixels
from data_tools.meshes.load import load_mesh
from data_tools.meshes.polygons import triangulate
from data_tools.meshes.surfaces import UnrenderableMesh
from data_tools.shared.sources import find_meshes, read_metadata
from data_tools.shared.worker_pool import TASKS_PER_WORKER, run_tasks

ANY = 10**9
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def load(path: Path, max_triangles: int = ANY):
    return load_mesh(path, "sphere", np.eye(4), max_triangles)


def textured_box(folder: Path) -> Path:
    """A glTF with its image in the buffer."""
    box = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (8, 8), (200, 30, 30)))
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    for name, content in box.export(file_type="gltf").items():
        (folder / name).write_bytes(content)
    return folder / "model.gltf"


def changed(path: Path, change) -> Path:
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))
    return path


def points_to(uri: str):
    return lambda header: header["images"].__setitem__(0, {"uri": uri, "name": "skin"})


def test_a_image_that_gltf_names_and_cannot_be_read_is_noted(tmp_path):
    path = textured_box(tmp_path)
    assert load(path).notes == [] and load(path).surfaces[0].material.base_image is not None
    missing = load(changed(path, points_to("gone%20away.png")))
    assert missing.notes == ["texture 'skin' not found; its material's colour is used"]
    broken = "data:image/png;base64," + base64.b64encode(b"\x89PNG and no more").decode()
    found = load(changed(path, points_to(broken)))
    assert found.notes == [
        "texture 'skin' cannot be read (it cannot be decoded: 16 bytes, no image that this program reads); "
        "its material's colour is used"
    ]
    Image.new("RGB", (4, 4)).save(tmp_path / "gone away.png")
    assert load(changed(path, points_to("gone%20away.png"))).notes == []


def test_a_glb_with_a_broken_image_is_noted_too(tmp_path):
    path = textured_box(tmp_path)
    trimesh.load_scene(path).export(tmp_path / "a.glb")
    content = (tmp_path / "a.glb").read_bytes()
    (tmp_path / "a.glb").write_bytes(content.replace(b"\x89PNG", b"\x00PNG"))
    (note,) = load(tmp_path / "a.glb").notes
    assert "cannot be read" in note


@pytest.mark.parametrize("form", ["utf-8", "cp1252", "NFD"])
def test_names_with_accents_however_they_are_written(tmp_path, form):
    Image.new("RGB", (4, 4)).save(tmp_path / "Hölz größe.png")
    material, obj = "newmtl hölz\nmap_Kd hölz größe.png\n", "mtllib a.mtl\n" + SQUARE
    obj += "usemtl hölz\nf 1/1 2/2 3/3 4/4\n"
    if form == "NFD":
        material, form = unicodedata.normalize("NFD", material.replace("newmtl hölz", "newmtl x")), "utf-8"
        obj = obj.replace("usemtl hölz", "usemtl x")
    (tmp_path / "a.mtl").write_bytes(material.encode(form))
    (tmp_path / "a.obj").write_bytes(obj.encode(form))
    mesh = load(tmp_path / "a.obj")
    assert mesh.notes == [] and mesh.surfaces[0].material.base_image is not None


def png(change) -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(held, "PNG")
    content = bytearray(held.getvalue())
    return bytes(change(content))


@pytest.mark.parametrize("content", [
    b"", b"<html>log in</html>", png(lambda c: c[: len(c) // 2]), png(lambda c: c[:20] + b"\0" * 9 + c[29:]),
    png(lambda c: c[:60] + bytes(255 - x for x in c[60:90]) + c[90:]), png(lambda c: c[:33] + c[40:]),
], ids=["empty", "page", "cut", "header", "changed", "bytes lost"])  # fmt: skip
def test_a_broken_image_costs_an_obj_its_texture_and_is_noted(tmp_path, content):
    (tmp_path / "t.png").write_bytes(content)
    (tmp_path / "a.mtl").write_text("newmtl p\nKd 1 0 0\nmap_Kd t.png\n")
    (tmp_path / "a.obj").write_text("mtllib a.mtl\n" + SQUARE + "usemtl p\nf 1/1 2/2 3/3 4/4\n")
    mesh = load(tmp_path / "a.obj")
    (note,) = mesh.notes
    assert note.startswith("texture 't.png' unreadable (") and "\n" not in note
    assert mesh.surfaces[0].material.base_color[:3] == (1, 0, 0)


def ball_file(folder: Path, scale: float, offset: float = 0.0) -> Path:
    ball = trimesh.creation.icosphere(1)
    rows = [f"v {x!r} {y!r} {z!r}" for x, y, z in (ball.vertices * scale + offset).tolist()]
    rows += [f"f {a} {b} {c}" for a, b, c in (ball.faces + 1).tolist()]
    (folder / "a.obj").write_text("\n".join(rows))
    return folder / "a.obj"


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "1e999"])
def test_a_vertex_that_is_nan_or_infinite_costs_its_triangles_and_is_noted(tmp_path, bad):
    path = ball_file(tmp_path, 1.0)
    lines = path.read_text().splitlines()
    around = sum(line.startswith("f ") and "7" in line.split()[1:] for line in lines)
    lines[6] = f"v 0 {bad} 0"
    path.write_text("\n".join(lines))
    mesh = load(path)
    assert mesh.num_triangles == 80 - around and around > 0
    assert np.isfinite(mesh.surfaces[0].positions).all() and np.isfinite(mesh.surfaces[0].normals).all()
    assert mesh.notes == [f"NaN or infinite vertices; {around} of 80 triangles are left out"]
    path.write_text("\n".join(["v nan 0 0"] * 42 + lines[42:]))
    with pytest.raises(UnrenderableMesh, match="NaN or infinity at every triangle"):
        load(path)


def test_texture_coordinates_and_normals_that_are_nan_cost_no_triangle(tmp_path):
    text = SQUARE.replace("vt 1 0", "vt nan 0") + "vn 0 0 nan\nf 1/1/1 2/2/1 3/3/1 4/4/1\n"
    (tmp_path / "a.obj").write_text(text)
    mesh = load(tmp_path / "a.obj")
    (surface,) = mesh.surfaces
    assert surface.num_triangles == 2 and np.isfinite(surface.uv).all()
    np.testing.assert_allclose(np.abs(surface.normals[..., 2]) > 0, True)
    assert mesh.notes == ["NaN or infinite texture coordinates or colours at 1 corners"]


@pytest.mark.parametrize("value", [0, 40, 1000, 30_000, 65_535])
def test_grey_of_16_bits_ranges_from_0_to_65535_also_where_all_of_it_is_dark(value):
    held = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint16)).save(held, "PNG")
    pixels = texture_pixels(Image.open(held), 64)
    np.testing.assert_array_equal(pixels[..., :3], round(value / 65535 * 255))
    np.testing.assert_array_equal(pixels[..., 3], 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"])
def test_a_texture_of_any_mode_is_white_where_it_is_white(mode):
    image = Image.new("RGB", (4, 4), "white")
    image = image.convert("RGBA" if mode in ("RGBa", "PA") else "RGB")
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (255, 128, 128)])
    else:
        image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    assert (texture_pixels(image, 64) >= 254).all(), texture_pixels(image, 64)[0, 0]


@pytest.mark.parametrize(
    ("scale", "offset"), [(1e9, 5e11), (1e-9, 1.0), (1e-12, 0.0), (1e30, 0.0), (1e-3, 1e8)]
)
def test_any_units_and_any_place(tmp_path, scale, offset):
    (surface,) = load(ball_file(tmp_path, scale, offset)).surfaces
    radii = np.linalg.norm(surface.positions, axis=-1)
    np.testing.assert_allclose(radii, 0.6, rtol=2e-2)
    assert len(surface.positions) == 80 and np.isfinite(surface.normals).all()


def test_too_many_triangles_are_refused_while_an_obj_is_read(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text(SQUARE + "f 1 2 3 4\n" * 1000)
    with pytest.raises(UnrenderableMesh, match="more than --max-triangles 50"):
        load(path, 50)
    assert sum(s.num_triangles for s in load(path, 2000).surfaces) == 2000


def test_a_polygon_of_thousands_of_corners_is_covered_once():
    angle = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    radius = 1 + 0.3 * np.sin(40 * angle)
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)
    triangles = outline[triangulate(np.arange(3000), np.array([3000]), outline)]
    cross = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])[:, 2]
    x, y = outline[:, 0], outline[:, 1]
    area = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
    assert len(triangles) == 2998 and (cross > -1e-9).all()
    np.testing.assert_allclose(cross.sum() / 2, area, rtol=1e-9)


def test_folders_that_link_to_themselves_end(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "back").symlink_to("..")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    for name in ("in/a.obj", "in/deep/b.obj", "elsewhere/c.obj"):
        (tmp_path / name).touch()
    found = [mesh.relative for mesh in find_meshes([str(tmp_path / "in")])]
    assert found == ["a.obj", "deep/b.obj", "linked/c.obj"]


def test_names_that_are_no_utf8_and_sidecars_with_numbers(tmp_path):
    (tmp_path / os.fsdecode(b"b\xff.obj")).touch()
    (tmp_path / "c.obj").touch()
    (tmp_path / "c.meta.json").write_text('{"uid": 12345, "caption": null, "licence": "CC0"}')
    first, second = (read_metadata(mesh) for mesh in find_meshes([str(tmp_path)]))
    assert first["source"] == "b\ufffd.obj" and first["uid"].startswith("b-")
    assert second == {"uid": "12345", "source": "c.obj", "licence": "CC0"}
    (tmp_path / "list.txt").write_bytes(b"b\xff.obj\n")
    (mesh,) = find_meshes([str(tmp_path / "list.txt")])
    assert mesh.path.is_file()


def double(x: int) -> int:
    return 2 * x


def make_double():
    return double


def test_many_changes_of_workers_lose_nothing(monkeypatch):
    # Each used to wrap the list of what is left once more; half a million objects were too deep.
    monkeypatch.setattr("data_tools.shared.worker_pool.TASKS_PER_WORKER", 2)
    assert TASKS_PER_WORKER == 500
    done = list(run_tasks(iter(range(7)), [(make_double, ())] * 2, 60.0))
    assert sorted(done) == [(i, 2 * i) for i in range(7)]


def test_a_texture_that_is_a_program_is_not_run(tmp_path):
    """Pillow hands EPS to Ghostscript, under whatever name it comes."""
    from PIL import Image

    from lgm.data.schema.decode import known_formats, opened_image

    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with (
        pytest.raises(ValueError, match="no image that this program reads"),
        opened_image(tmp_path / "a.png", "it", max_pixels=100, formats=None, kind=ValueError),
    ):
        pass
    assert "PNG" in known_formats() and "EPS" not in known_formats()


def test_a_gltf_image_is_bounded_before_pillow_allocates_it(tmp_path):
    """A WebP of a few hundred bytes may ask for a canvas of a gigabyte."""
    path = textured_box(tmp_path)
    size = 16383 - 1
    header = b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + 2 * size.to_bytes(3, "little")
    broken = "data:image/webp;base64," + base64.b64encode(header + bytes(16)).decode()
    (note,) = load(changed(path, points_to(broken))).notes
    assert "it is 16383 × 16383, larger than" in note
