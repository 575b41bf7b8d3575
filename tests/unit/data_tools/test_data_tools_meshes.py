"""Reading mesh files: what exporters really write. No graphics needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")

from data_tools.meshes.load import load_mesh
from data_tools.meshes.mtl import texture_names
from data_tools.meshes.normals import crease_normals, face_normals
from data_tools.meshes.obj import read_obj
from data_tools.meshes.polygons import triangulate
from data_tools.meshes.surfaces import UnrenderableMesh, image_alpha_mode
from data_tools.shared.colors import linear_to_srgb, srgb_to_linear

ANY = 10**9
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def load(path: Path, normalize: str = "sphere", max_triangles: int = 1000):
    return load_mesh(path, normalize, np.eye(4), max_triangles)


def area(positions: np.ndarray) -> float:
    return float(np.linalg.norm(face_normals(positions), axis=1).sum() / 2)


def test_one_face_without_texture_coordinates_costs_the_others_nothing(tmp_path):
    text = SQUARE + "vt 0 0\nvt 1 0\nvt 1 1\nf 1/1 2/2 3/3\nf 1 3 4\n"
    mesh = read_obj(write(tmp_path / "a.obj", text), ANY)
    assert [(s.num_triangles, s.uv is not None) for s in mesh.surfaces] == [(1, True), (1, False)]


def test_relative_indices_count_from_the_face(tmp_path):
    text = SQUARE + "f -4 -3 -2\n" + SQUARE.replace(" 0\n", " 5\n") + "f -4 -3 -2\n"
    mesh = read_obj(write(tmp_path / "a.obj", text), ANY)
    np.testing.assert_array_equal(mesh.surfaces[0].positions[:, :, 2], [[0, 0, 0], [5, 5, 5]])


def test_index_past_the_end_is_a_reason(tmp_path):
    with pytest.raises(UnrenderableMesh, match="names vertex 9 of 4"):
        read_obj(write(tmp_path / "a.obj", SQUARE + "f 1 2 9\n"), ANY)


def test_materials_with_windows_paths_other_case_and_missing_images(tmp_path):
    Image.new("RGB", (2, 2), "red").save(tmp_path / "Wood Grain.png")
    write(
        tmp_path / "m.mtl",
        "newmtl found\nKd 0 0 0\nmap_Kd -s 1 1 1 C:\\Users\\me\\wood grain.PNG\n"
        "newmtl lost\nKd 1 0 0\nmap_Kd gone.png\nnewmtl glass\nTr 0.75\nKd 1 1 1\n",
    )
    faces = "usemtl found\nf 1 2 3\nusemtl lost\nf 1 2 4\nusemtl glass\nf 1 3 4\nusemtl other\nf 2 3 4\n"
    mesh = read_obj(write(tmp_path / "a.obj", "mtllib m.mtl\n" + SQUARE + faces), ANY)
    found, lost, glass, other = (surface.material for surface in mesh.surfaces)
    assert found.base_image is not None and found.base_color == (1, 1, 1, 1)
    assert lost.base_image is None and lost.base_color == (1, 0, 0, 1)
    assert glass.alpha_mode == "blend" and glass.base_color[3] == 0.25
    assert other.alpha_mode == "opaque"
    assert [note.split(";")[0] for note in mesh.notes] == [
        "texture 'gone.png' not found",
        "material 'other' not found",
    ]


def test_tabs_and_several_spaces_part_a_keyword_from_what_follows(tmp_path):
    for name in ("b.png", "wood  grain.png"):
        Image.new("RGB", (2, 2), "red").save(tmp_path / name)
    material = "newmtl\tred\n\tKd\t1 0 0\nnewmtl  a\tb\nmap_Kd\tb.png\nnewmtl c\n"
    material += "map_Kd  -s\t1  1 1 -clamp on\twood  grain.png\nd\t-halo\t0.25\n"
    write(tmp_path / "m.mtl", material)
    assert texture_names(material.encode()) == ["b.png", "wood  grain.png"]
    text = "mtllib\tm.mtl\n" + SQUARE.replace("v ", "v\t") + "vt\t0  0\nvn\t0 0\t1\n"
    text += "usemtl\t red\nf\t1/1/1 2/1/1\t3/1/1\nusemtl a\tb\nf  1 2 3\nusemtl\t c\nf 1 3\t4\n"
    mesh = read_obj(write(tmp_path / "a.obj", text), ANY)
    red, first, second = mesh.surfaces
    assert mesh.notes == [] and red.uv is not None and red.normals is not None
    assert red.material.base_color == (1, 0, 0, 1)
    assert first.material.base_image is not None and second.material.base_image is not None
    assert second.material.base_color[3] == 0.25


def test_vertex_colours_are_srgb(tmp_path):
    text = "v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0.5 0.5 0.5\nf 1 2 3\n"
    colors = read_obj(write(tmp_path / "a.obj", text), ANY).surfaces[0].colors
    np.testing.assert_allclose(colors[0, 0], [1, 0, 0, 1])
    np.testing.assert_allclose(colors[0, 2, :3], srgb_to_linear(np.full(3, 0.5)))


@pytest.mark.parametrize("turn", [1, -1])
def test_concave_polygon_keeps_its_area(turn):
    outline = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [2, 1, 0], [0, 4, 0]], dtype=float)[::turn]
    triangles = triangulate(np.arange(5), np.array([5]), outline)
    assert len(triangles) == 3
    assert area(outline[triangles]) == pytest.approx(10.0)


def test_triangulation_mixes_sizes():
    corners = np.array([0, 1, 2, 0, 1, 2, 3])
    positions = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=float)
    triangles = triangulate(corners, np.array([3, 4]), positions)
    assert area(positions[corners[triangles]]) == pytest.approx(1.5)


def test_crease_normals_are_sharp_on_a_box_and_smooth_on_a_ball():
    import trimesh

    box = trimesh.creation.box()
    normals = crease_normals(box.vertices[box.faces])
    np.testing.assert_allclose(np.abs(normals).max(-1), np.linalg.norm(normals, axis=-1), rtol=1e-9)
    ball = trimesh.creation.icosphere(subdivisions=3)
    faces = ball.faces.copy()
    faces[::2] = faces[::2, ::-1]  # half of them inside out
    positions = ball.vertices[faces]
    normals = crease_normals(positions)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    assert np.abs((normals * positions).sum(-1)).min() > 0.999


def test_normalisation(tmp_path):
    path = write(tmp_path / "a.obj", "v 10 0 0\nv 12 0 0\nv 10 1 0\nf 1 2 3\n")
    sphere = load(path).surfaces[0].positions.reshape(-1, 3)
    assert np.linalg.norm(sphere, axis=1).max() == pytest.approx(0.6)
    np.testing.assert_allclose(sphere.min(0) + sphere.max(0), 0, atol=1e-12)
    box = load(path, "box").surfaces[0].positions.reshape(-1, 3)
    assert np.ptp(box, axis=0).max() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.obj", "", "empty file"),
        ("a.obj", SQUARE, "no faces"),
        ("a.obj", SQUARE.replace("1 1", "nan 1") + "f 1 2 3\n", "NaN or infinity"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "no triangle with an area"),
        ("a.obj", "v a b c\nf 1 1 1\n", "unreadable OBJ"),
        ("a.glb", "this is no GLB", "unreadable GLB"),
        ("a.ply", "ply\nformat ascii 1.0\nend_header\n", "no faces|unreadable PLY"),
        ("a.stl", "nothing", "no faces|unreadable STL"),
    ],
)
def test_a_bad_mesh_has_a_reason(tmp_path, name, content, reason):
    with pytest.raises(UnrenderableMesh, match=reason):
        load(write(tmp_path / name, content))


def test_too_many_triangles_are_refused_before_copying(tmp_path):
    import trimesh

    scene = trimesh.Scene()
    geometry = trimesh.creation.box()
    for i in range(50):
        scene.add_geometry(geometry, geom_name="box", transform=np.eye(4) + np.eye(4, k=3) * i)
    scene.export(tmp_path / "a.glb")
    with pytest.raises(UnrenderableMesh, match="600 triangles, more than --max-triangles 500"):
        load(tmp_path / "a.glb", max_triangles=500)


def test_scene_nodes_are_placed_and_keep_their_normals(tmp_path):
    import trimesh

    scene = trimesh.Scene()
    for x in (-3.0, 3.0):
        matrix = trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1])
        matrix[0, 3] = x
        scene.add_geometry(trimesh.creation.box(), transform=matrix)
    scene.export(tmp_path / "a.glb", include_normals=True)
    mesh = load(tmp_path / "a.glb", "box")
    assert mesh.num_triangles == 24
    for surface in mesh.surfaces:
        faces = face_normals(surface.positions)[:, None]
        assert ((surface.normals * faces).sum(-1) > 0).all()
    everything = np.concatenate([s.positions.reshape(-1, 3) for s in mesh.surfaces])
    np.testing.assert_allclose(everything.max(0), [0.5, 0.5 / 7, 0.5 / 7], atol=1e-6)


def test_srgb_round_trip():
    values = np.linspace(0, 1, 101)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-4)


def test_alpha_of_a_image():
    pixels = np.full((8, 8, 4), 255, dtype=np.uint8)
    assert image_alpha_mode(Image.fromarray(pixels)) == "opaque"
    pixels[:4, :, 3] = 0
    assert image_alpha_mode(Image.fromarray(pixels)) == "mask"
    pixels[..., 3] = 128
    assert image_alpha_mode(Image.fromarray(pixels)) == "blend"
