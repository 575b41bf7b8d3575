"""PLY and STL files of every kind that programs write: what is in them is drawn, or noted, or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mapbox_earcut", reason="mapbox_earcut is missing; pip install 'lgm-training[render]'")

from data_tools.meshes.normals import face_normals
from data_tools.meshes.ply import read_ply
from data_tools.meshes.polygons import triangulate
from data_tools.meshes.stl import read_stl
from data_tools.meshes.surfaces import UNCOLORED, UnrenderableMesh
from data_tools.shared.colors import srgb_to_linear

ANY = 10**9
XYZ = [("x", "float"), ("y", "float"), ("z", "float")]
SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
CODES = {
    "char": "b",
    "uchar": "B",
    "short": "h",
    "ushort": "H",
    "int": "i",
    "uint": "I",
    "float": "f",
    "double": "d",
}
FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def ply_file(
    folder: Path, vertices, faces, columns=XYZ, face_columns=(("list uchar int", "vertex_indices"),),
    kind="ascii", comments=(), element="face", line_end="\n",
) -> Path:  # fmt: skip
    """vertices: rows of numbers. faces: rows of values, lists where the column is one."""
    order = FORMATS[kind]
    head = ["ply", f"format {kind} 1.0", *comments, f"element vertex {len(vertices)}"]
    head += [f"property {code} {name}" for name, code in columns]
    head += [f"element {element} {len(faces)}"]
    head += [f"property {code} {name}" for code, name in face_columns]
    content = line_end.join([*head, "end_header", ""]).encode("latin-1")
    for rows, kinds in ((vertices, [c for _, c in columns]), (faces, [c for c, _ in face_columns])):
        for row in rows:
            words = []
            for value, code in zip(row, kinds, strict=True):
                if code.startswith("list"):
                    _, length, number = code.split()
                    words += [(length, len(value)), *((number, x) for x in value)]
                else:
                    words.append((code, value))
            if kind == "ascii":
                content += (" ".join(str(x) for _, x in words) + line_end).encode()
            else:
                content += b"".join(struct.pack(order + CODES[c], x) for c, x in words)
    path = folder / "a.ply"
    path.write_bytes(content)
    return path


def area(mesh) -> float:
    return sum(float(np.linalg.norm(face_normals(s.positions), axis=1).sum() / 2) for s in mesh.surfaces)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("lists", ["uchar int", "int uint", "ushort ushort", "uint uchar", "char short"])
def test_triangles_beside_polygons_in_any_byte_order_and_with_lists_of_any_type(tmp_path, kind, lists):
    rows = [*SQUARE, (3, 0, 0), (3, 1, 0), (2, 2, 0)]
    faces = [([0, 1, 2],), ([0, 2, 3],), ([1, 4, 5, 2],), ([3, 2, 5, 6],), ([2, 5],)]
    path = ply_file(tmp_path, rows, faces, face_columns=[(f"list {lists}", "vertex_index")], kind=kind)
    mesh = read_ply(path, ANY)
    assert mesh.num_triangles == 6 and area(mesh) == pytest.approx(1 + 2 + 1.5)
    assert mesh.surfaces[0].material.base_color == UNCOLORED


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_header_with_other_elements_columns_and_comments_in_any_script(tmp_path, kind, line_end):
    columns = [("confidence", "double"), ("Z", "double"), ("y", "short"), ("x", "float"), ("flags", "uchar")]
    rows = [(0.5, z, y, x, 13) for x, y, z in SQUARE]
    face_columns = [("short", "first"), ("list uchar int", "vertex_indices"), ("double", "last")]
    faces = [(1, [0, 1, 2, 3], 2.0), (1, [0, 1, 2], 2.0)]
    path = ply_file(tmp_path, rows, faces, columns, face_columns, kind,
                    ["comment von Hölz", "obj_info num_cols 3"], line_end=line_end)  # fmt: skip
    assert area(read_ply(path, ANY)) == pytest.approx(1.5)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_concave_polygon_has_no_triangle_outside_of_it(tmp_path, turn):
    outline = [(0, 0, 0), (3, 0, 1), (3, 1, 1), (1, 1, 0), (1, 3, 0), (0, 3, 0)]
    arrow = [(10, 0, 0), (12, 1, 0), (10, 2, 0), (11, 1, 0)]
    faces = [(list(range(6))[::turn],), (list(range(6, 10))[::turn],)]
    mesh = read_ply(ply_file(tmp_path, outline + arrow, faces), ANY)
    normals = face_normals(mesh.surfaces[0].positions)
    assert (np.sign(normals[:, 2]) == turn).all() and mesh.num_triangles == 6
    assert np.abs(normals[:, 2]).sum() / 2 == pytest.approx(5 + 1)


def test_polygons_of_every_shape_are_covered_once():
    rng = np.random.default_rng(0)
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    for size in (4, 5, 7, 12, 40):
        angle = (np.arange(size) + rng.uniform(0, 0.6, size)) * 2 * np.pi / size
        radius = rng.uniform(0.2, 1, size)
        flat = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)
        x, y = flat[:, 0], flat[:, 1]
        expected = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
        points = flat @ turned.T + 1000
        triangles = points[triangulate(np.arange(size), np.array([size]), points)]
        normals = face_normals(triangles)
        assert (normals @ normals[0] > -1e-9).all()
        assert np.linalg.norm(normals, axis=1).sum() / 2 == pytest.approx(expected, rel=1e-6)


def test_triangle_strips_and_the_minus_one_between_them(tmp_path):
    rows = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (5, 0, 0), (5, 1, 0), (6, 0, 0)]
    for kind in FORMATS:
        strips = [([0, 1, 2, 3, -1, 4, 5, 6],)]
        path = ply_file(tmp_path, rows, strips, face_columns=[("list int int", "vertex_indices")],
                        element="tristrips", kind=kind)  # fmt: skip
        mesh = read_ply(path, ANY)
        normals = face_normals(mesh.surfaces[0].positions)
        assert mesh.num_triangles == 3 and area(mesh) == pytest.approx(1.5)
        assert len(set(np.sign(normals[:, 2]))) == 1  # every second triangle is turned round
    two = ply_file(tmp_path, rows, [([0, 1, 2, 3],), ([4, 5, 6],)], element="tristrips")
    assert area(read_ply(two, ANY)) == pytest.approx(1.5)


RED_GREY = [(255, 0, 0), (255, 0, 0), (128, 128, 128), (128, 128, 128)]


@pytest.mark.parametrize(
    "names", [("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), "rgb"]
)
@pytest.mark.parametrize(
    ("kind", "full"), [("uchar", 255), ("ushort", 65535), ("float", 1.0), ("float", 255.0)]
)
def test_vertex_colours_of_any_name_and_type_are_srgb(tmp_path, names, kind, full):
    columns = [*XYZ, *((name, kind) for name in names)]
    cast = float if kind == "float" else round
    rows = [(*p, *(cast(c / 255 * full) for c in color)) for p, color in zip(SQUARE, RED_GREY, strict=True)]
    (surface,) = read_ply(ply_file(tmp_path, rows, [([0, 1, 2, 3],)], columns), ANY).surfaces
    assert surface.material.base_color == (1, 1, 1, 1)
    np.testing.assert_allclose(surface.colors[0, 0], [1, 0, 0, 1])
    np.testing.assert_allclose(surface.colors[0, 2, :3], srgb_to_linear(128 / 255), rtol=2e-3)


@pytest.mark.parametrize(("names", "words"), [
    (["intensity"], "intensity"),
    (["f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0"], "f_dc_0, f_dc_1, f_dc_2, opacity and 1 more"),
    (["rgb", "confidence"], "rgb are not drawn"),
])  # fmt: skip
def test_columns_that_may_be_colours_by_other_names_are_noted(tmp_path, names, words):
    path = ply_file(tmp_path, [(*corner, *[0.5] * len(names)) for corner in SQUARE], [([0, 1, 2, 3],)],
                    [*XYZ, *((name, "float") for name in names)])  # fmt: skip
    mesh = read_ply(path, ANY)
    assert [note for note in mesh.notes if words in note and "grey is used" in note]
    assert mesh.surfaces[0].material.base_color == UNCOLORED


@pytest.mark.parametrize("name", ["confidence", "quality", "flags", "nx"])
def test_columns_that_are_no_colours_need_no_note(tmp_path, name):
    path = ply_file(
        tmp_path, [(*corner, 0.5) for corner in SQUARE], [([0, 1, 2, 3],)], [*XYZ, (name, "float")]
    )
    assert read_ply(path, ANY).notes == []


def test_alpha_of_colours_blends_and_an_alpha_of_0_everywhere_is_noted(tmp_path):
    columns = [*XYZ, *((name, "uchar") for name in ("red", "green", "blue", "alpha"))]
    for alpha, mode, notes in ((255, "opaque", []), (100, "blend", []),
                               (0, "opaque", ["every colour has alpha 0; drawn opaque"])):  # fmt: skip
        rows = [(*p, 10, 20, 30, alpha) for p in SQUARE]
        mesh = read_ply(ply_file(tmp_path, rows, [([0, 1, 2, 3],)], columns), ANY)
        assert (mesh.surfaces[0].material.alpha_mode, mesh.notes) == (mode, notes)
        np.testing.assert_allclose(mesh.surfaces[0].colors[..., 3], alpha / 255 or 1)


def test_colours_of_faces_and_of_corners(tmp_path):
    face_columns = [
        ("list uchar int", "vertex_indices"),
        *(("uchar", name) for name in ("red", "green", "blue")),
    ]
    faces = [([0, 1, 2], 255, 0, 0), ([0, 2, 3], 0, 0, 255)]
    (surface,) = read_ply(ply_file(tmp_path, SQUARE, faces, face_columns=face_columns), ANY).surfaces
    np.testing.assert_allclose(surface.colors[:, :, 0], [[1, 1, 1], [0, 0, 0]])
    face_columns = [("list uchar int", "vertex_indices"), ("list uchar float", "color")]
    faces = [([0, 1, 2], [1, 0, 0, 0, 1, 0, 0, 0, 1]), ([0, 2, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1])]
    (surface,) = read_ply(ply_file(tmp_path, SQUARE, faces, face_columns=face_columns), ANY).surfaces
    np.testing.assert_allclose(surface.colors[1, :, :3], np.eye(3))


def test_texture_coordinates_without_a_texture_leave_colours_or_grey(tmp_path):
    columns = [*XYZ, ("s", "float"), ("t", "float")]
    rows = [(*p, p[0], p[1]) for p in SQUARE]
    grey = read_ply(ply_file(tmp_path, rows, [([0, 1, 2, 3],)], columns), ANY)
    assert grey.surfaces[0].material.base_color == UNCOLORED and grey.surfaces[0].uv is None
    assert grey.notes == ["has texture coordinates and names no texture; grey is used"]
    columns += [(name, "uchar") for name in ("red", "green", "blue")]
    colored = read_ply(
        ply_file(tmp_path, [(*row, 255, 0, 0) for row in rows], [([0, 1, 2, 3],)], columns), ANY
    )
    assert colored.notes == []
    np.testing.assert_allclose(colored.surfaces[0].colors[..., :3], np.broadcast_to([1, 0, 0], (2, 3, 3)))


def test_the_texture_that_a_comment_names_or_a_note_that_it_is_missing(tmp_path):
    columns = [*XYZ, ("texture_u", "double"), ("texture_v", "double"), ("red", "uchar"), ("green", "uchar"),
               ("blue", "uchar")]  # fmt: skip
    rows = [(*p, p[0], p[1], 9, 9, 9) for p in SQUARE]
    path = ply_file(tmp_path, rows, [([0, 1, 2, 3],)], columns, comments=["comment TextureFile my skin.png"])
    mesh = read_ply(path, ANY)
    assert mesh.notes == ["texture 'my skin.png' not found; its material's colour is used"]
    assert mesh.surfaces[0].colors is not None
    Image.new("RGB", (2, 2), "red").save(tmp_path / "My Skin.PNG")
    mesh = read_ply(path, ANY)
    assert mesh.surfaces[0].material.base_image is not None and mesh.surfaces[0].colors is None
    assert mesh.notes == ["has a texture and colours; the texture alone is drawn"]


def test_an_image_of_the_meshs_own_name_is_its_texture(tmp_path):
    Image.new("RGB", (2, 2), "red").save(tmp_path / "A.jpg")
    rows = [(*p, p[0], p[1]) for p in SQUARE]
    path = ply_file(tmp_path, rows, [([0, 1, 2, 3],)], [*XYZ, ("u", "float"), ("v", "float")])
    mesh = read_ply(path, ANY)
    assert mesh.surfaces[0].material.base_image is not None
    assert mesh.notes == ["names no texture; 'A.jpg' is used"]


def test_texture_coordinates_of_corners_and_several_textures(tmp_path):
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (2, 2), color).save(tmp_path / name)
    face_columns = [
        ("list uchar int", "vertex_indices"),
        ("list uchar float", "texcoord"),
        ("int", "texnumber"),
    ]
    faces = [([0, 1, 2], [0, 0, 1, 0, 1, 1], 1), ([0, 2, 3], [0, 0, 0.5, 1, 0, 1], 0), ([0, 1, 3], [], -1)]
    comments = ["comment TextureFile a.png", "comment TextureFile b.png"]
    for kind in FORMATS:
        path = ply_file(tmp_path, SQUARE, faces, face_columns=face_columns, kind=kind, comments=comments)
        none, first, second = read_ply(path, ANY).surfaces
        assert none.material.base_image is None and none.uv is None and none.material.base_color == UNCOLORED
        assert first.material.base_image.getpixel((0, 0)) == (255, 0, 0)
        np.testing.assert_allclose(first.uv, [[[0, 0], [0.5, 1], [0, 1]]])
        assert second.material.base_image.getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_ply_that_is_cut_off_or_names_no_vertex_is_refused(tmp_path, kind):
    path = ply_file(tmp_path, SQUARE, [([0, 1, 2],), ([0, 1, 2, 3],)], kind=kind)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(UnrenderableMesh, match=r"fewer than its header says|ends within element face"):
        read_ply(path, ANY)
    if kind == "ascii":
        path.write_bytes(whole.replace(b"3 0 1 2\n", b"3 0 1 2 9 1 1 1\n") + b"1 2 3\n")
        mesh = read_ply(path, ANY)
        assert mesh.num_triangles == 3 and area(mesh) == pytest.approx(1.5)
        assert mesh.notes == ["its lines hold more than its header says; the rest of each is left out"]
        path.write_bytes(whole.replace(b"3 0 1 2\n", b"3 0 1\n2\n9 9\n"))
        with pytest.raises(UnrenderableMesh, match="than its header says"):
            read_ply(path, ANY)
    for number in (4, -1):
        with pytest.raises(UnrenderableMesh, match=f"names vertex {number} of 4"):
            read_ply(ply_file(tmp_path, SQUARE, [([0, 1, number],)], kind=kind), ANY)
    with pytest.raises(UnrenderableMesh, match="3 triangles, more than --max-triangles 2"):
        read_ply(ply_file(tmp_path, SQUARE, [([0, 1, 2],), ([0, 1, 2, 3],)], kind=kind), 2)


@pytest.mark.parametrize(("content", "reason"), [
    (b"plx\n", "does not begin with 'ply'"), (b"ply\nformat ascii 1.0\n", "no end_header"),
    (b"ply\nformat binary 1.0\nend_header\n", "has 'format binary 1.0'"),
    (b"ply\nformat ascii 1.0\nelement vertex two\nend_header\n", "has 'element vertex two'"),
    (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "have no y, z"),
])  # fmt: skip
def test_what_is_no_ply_has_its_reason(tmp_path, content, reason):
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(UnrenderableMesh, match=reason):
        read_ply(tmp_path / "a.ply", ANY)


TRIANGLES = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 1, 0], [0, 0, 1]],
                      [[0, 0, 0], [0, 0, 1], [1, 0, 0]]])  # fmt: skip


def stl_file(folder: Path, header: bytes = b"", words=(0, 0, 0), count: int | None = None) -> Path:
    body = b"".join(
        struct.pack("<12fH", 0, 0, 0, *t.ravel(), w) for t, w in zip(TRIANGLES, words, strict=True)
    )
    path = folder / "a.stl"
    path.write_bytes(
        header.ljust(80, b"\0") + struct.pack("<I", len(words) if count is None else count) + body
    )
    return path


def rgb5(red: int, green: int, blue: int, red_highest: bool) -> int:
    r, g, b = (round(c / 255 * 31) for c in (red, green, blue))
    return r << 10 | g << 5 | b if red_highest else b << 10 | g << 5 | r


def test_stl_colours_as_viscam_writes_them(tmp_path):
    words = (0x8000 | rgb5(255, 0, 0, True), 0x8000 | rgb5(0, 0, 132, True), 0)
    (surface,) = read_stl(stl_file(tmp_path, words=words), ANY).surfaces
    np.testing.assert_allclose(surface.colors[0], np.tile([1, 0, 0, 1], (3, 1)))
    np.testing.assert_allclose(surface.colors[1, 0], [0, 0, srgb_to_linear(16 / 31), 1])
    np.testing.assert_allclose(surface.colors[2, 0], UNCOLORED)
    plain = read_stl(stl_file(tmp_path, words=(0, 7, 0)), ANY).surfaces[0]
    assert plain.colors is None and plain.material.base_color == UNCOLORED


def test_an_stl_whose_every_word_is_filled_has_no_colours(tmp_path):
    """Meshmixer writes 0xFFFF, which VisCAM's bits would make white: an object without colours is grey."""
    mesh = read_stl(stl_file(tmp_path, b"MESHMIXER-STL-BINARY-FORMAT", (0xFFFF,) * 3), ANY)
    assert mesh.surfaces[0].colors is None and mesh.surfaces[0].material.base_color == UNCOLORED
    assert "0xFFFF" in mesh.notes[0]
    (surface,) = read_stl(stl_file(tmp_path, words=(0xFFFF, 0xFFFF, 0x8000)), ANY).surfaces
    np.testing.assert_allclose(surface.colors[:, 0, 0], [1, 1, 0])


def test_stl_colours_as_magics_writes_them(tmp_path):
    header = b"COLOR=" + bytes([0, 255, 0, 255]) + b",MATERIAL=" + bytes(12)
    words = (rgb5(255, 0, 0, False), rgb5(0, 0, 255, False), 0x8000)
    (surface,) = read_stl(stl_file(tmp_path, header, words), ANY).surfaces
    np.testing.assert_allclose(surface.colors[:, 0, :3], [[1, 0, 0], [0, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize("name", [b"solid a thing", b"solid facet normal"])
def test_a_binary_stl_may_begin_with_solid(tmp_path, name):
    assert read_stl(stl_file(tmp_path, name), ANY).num_triangles == 3


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ascii_stl_in_any_case_and_with_several_solids(tmp_path, end):
    lines = []
    for k, triangle in enumerate(TRIANGLES):
        lines += [f"{'SOLID' if k else 'solid'} part {k}", "facet normal 0 0 nan", "outer loop"]
        lines += [f"  {'VERTEX' if k else 'vertex'} {x:.3e} {y} {z}" for x, y, z in triangle]
        lines += ["endloop", "endfacet", "endsolid"]
    (tmp_path / "a.stl").write_bytes(end.join(lines).encode())
    mesh = read_stl(tmp_path / "a.stl", ANY)
    np.testing.assert_allclose(mesh.surfaces[0].positions, TRIANGLES)
    assert mesh.notes == []


def test_an_stl_that_is_cut_off_is_refused(tmp_path):
    with pytest.raises(UnrenderableMesh, match="holds 3 triangles, fewer than the 9"):
        read_stl(stl_file(tmp_path, count=9), ANY)
    (tmp_path / "a.stl").write_text("solid x\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0")
    with pytest.raises(UnrenderableMesh, match="unreadable STL"):
        read_stl(tmp_path / "a.stl", ANY)
    with pytest.raises(UnrenderableMesh, match="more than --max-triangles 2"):
        read_stl(stl_file(tmp_path), 2)
