"""OBJ and MTL files of every kind that programs write: what is in them is drawn, or noted, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mapbox_earcut", reason="mapbox_earcut is missing; pip install 'lgm-training[render]'")

from data_tools.meshes import obj_lines
from data_tools.meshes.mtl import parse_map, read_materials
from data_tools.meshes.obj import read_obj
from data_tools.meshes.surfaces import UNCOLORED, UnrenderableMesh
from data_tools.shared.colors import srgb_to_linear

ANY = 10**9
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
UV = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
TEXTURED = SQUARE + UV + "usemtl m\nf 1/1 2/2 3/3 4/4\n"


def read(folder: Path, obj: str | bytes, **files: str | bytes):
    """A mesh from `a.obj` and files beside it, named with _ for the dot; .png are images of a colour."""
    for name, content in {"a_obj": obj, **files}.items():
        path = folder / ".".join(name.rsplit("_", 1))
        if path.suffix == ".png":
            Image.new("RGB", (4, 4), content).save(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_obj(folder / "a.obj", ANY)


def material(folder: Path, text: str, **files):
    (folder / "a.mtl").write_text("newmtl m\n" + text)
    for name, content in files.items():
        content.save(folder / f"{name}.png")
    notes: list[str] = []
    return read_materials(folder / "a.mtl", notes)["m"], notes


def texture_color(mesh) -> tuple:
    image = mesh.surfaces[0].material.base_image
    return None if image is None else image.convert("RGB").getpixel((0, 0))


@pytest.mark.parametrize(("full", "alpha"), [(1.0, ""), (255, ""), (1.0, " 1.0"), (1.0, " 0.5")])
def test_vertex_colours_without_a_material_are_the_colours_and_alpha_blends(tmp_path, full, alpha):
    lines = [f"v {x} {y} 0 {full} {0.5 * full} 0{alpha}" for x, y in ((0, 0), (1, 0), (1, 1))]
    mesh = read(tmp_path, "\n".join(lines) + "\nf 1 2 3\n")
    (surface,) = mesh.surfaces
    assert surface.material.base_color == (1, 1, 1, 1) and mesh.notes == []
    np.testing.assert_allclose(surface.colors[0, 0], [1, srgb_to_linear(0.5), 0, float(alpha or 1)])
    assert surface.material.alpha_mode == ("blend" if alpha == " 0.5" else "opaque")


def test_vertices_without_a_colour_among_others_are_grey(tmp_path):
    mesh = read(tmp_path, "v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 1 0\nv 9 9 9\nf 1 2 3\nf 3 4 3\n")
    np.testing.assert_allclose(mesh.surfaces[0].colors[0], [[1, 0, 0, 1], [1, 0, 0, 1], UNCOLORED])
    plain = read(tmp_path, SQUARE + "f 1 2 3\n")
    assert plain.surfaces[0].colors is None and plain.surfaces[0].material.base_color == UNCOLORED


def test_colours_with_an_alpha_of_0_everywhere_are_noted(tmp_path):
    mesh = read(tmp_path, SQUARE.replace(" 0\n", " 0 1 0 0 0\n") + "f 1 2 3 4\n")
    assert mesh.surfaces[0].material.alpha_mode == "opaque"
    assert mesh.notes == ["every colour has alpha 0; drawn opaque"]


def test_a_texture_is_drawn_without_the_colours_of_the_vertices(tmp_path):
    obj = "mtllib a.mtl\n" + TEXTURED.replace(" 0\n", " 0 0.2 0.2 0.2\n", 4)
    mesh = read(tmp_path, obj, a_mtl="newmtl m\nmap_Kd t.png\n", t_png="red")
    assert texture_color(mesh) == (255, 0, 0) and mesh.surfaces[0].colors is None
    assert mesh.notes == ["has a texture and colours; the texture alone is drawn"]


@pytest.mark.parametrize("line", ["a.mtl b.mtl", "b.mtl a.mtl", "'a.mtl'", "my a b.mtl  a.mtl"])
def test_mtllib_names_one_file_or_several_with_spaces_or_without(tmp_path, line):
    (tmp_path / "my a b.mtl").write_text("newmtl x\n")
    mesh = read(tmp_path, f"mtllib {line}\n" + TEXTURED, a_mtl="newmtl m\nKd 1 0 0\n", b_mtl="newmtl n\n")
    assert mesh.surfaces[0].material.base_color[:3] == (1, 0, 0) and mesh.notes == []


def test_a_library_of_the_meshs_own_name_is_used_where_none_is_named_or_found(tmp_path):
    for head, notes in (
        ("", []),
        ("mtllib lost.mtl\n", ["material file 'lost.mtl' not found; grey is used"]),
    ):
        mesh = read(tmp_path, head + TEXTURED, A_mtl="newmtl m\nKd 1 0 0\n")
        assert mesh.surfaces[0].material.base_color[:3] == (1, 0, 0)
        assert mesh.notes == [*notes, "material file 'A.mtl' is used, which bears the mesh's name"]


def test_the_only_material_is_used_where_faces_name_none(tmp_path):
    obj = "mtllib a.mtl\n" + TEXTURED.replace("usemtl m\n", "")
    mesh = read(tmp_path, obj, a_mtl="newmtl m\nKd 1 0 0\n")
    assert mesh.surfaces[0].material.base_color[:3] == (1, 0, 0)
    assert mesh.notes == ["its faces name no material; 'm' is used, the only one"]
    mesh = read(tmp_path, obj, a_mtl="newmtl m\nKd 1 0 0\nnewmtl n\n")
    assert mesh.surfaces[0].material.base_color == UNCOLORED


def test_names_of_materials_in_another_case_are_found_and_others_noted(tmp_path):
    mesh = read(tmp_path, "mtllib a.mtl\n" + SQUARE + "usemtl M\nf 1 2 3\nusemtl gone\nf 1 3 4\n",
                a_mtl="newmtl m\nKd 1 0 0\n")  # fmt: skip
    assert [s.material.base_color[0] for s in mesh.surfaces] == [1.0, UNCOLORED[0]]
    assert mesh.notes == ["material 'gone' not found; grey is used"]


@pytest.mark.parametrize("named", ["", "map_Kd lost.png\n"])
def test_an_image_of_the_meshs_own_name_is_used_where_no_texture_is_there(tmp_path, named):
    mesh = read(tmp_path, "mtllib b.mtl\n" + TEXTURED, b_mtl="newmtl m\nKd 0 0 0\n" + named, a_png="red")
    assert texture_color(mesh) == (255, 0, 0) and mesh.surfaces[0].material.base_color == (1, 1, 1, 1)
    assert mesh.notes[-1] == "names no texture that is there; 'a.png' is used"


def test_a_texture_in_another_format_or_in_a_folder_of_textures_is_found(tmp_path):
    (tmp_path / "deep" / "Textures").mkdir(parents=True)
    (tmp_path / "textures").mkdir()
    Image.new("RGB", (2, 2), "red").save(tmp_path / "deep" / "Textures" / "wood.png")
    Image.new("RGB", (2, 2), "blue").save(tmp_path / "textures" / "metal.jpg")
    library = "newmtl m\nmap_Kd {}\n"
    mesh = read(tmp_path / "deep", "mtllib b.mtl\n" + TEXTURED, b_mtl=library.format("textures\\Wood.png"))
    assert texture_color(mesh) == (255, 0, 0) and mesh.notes == []
    mesh = read(tmp_path / "deep", "mtllib b.mtl\n" + TEXTURED, b_mtl=library.format("/home/me/metal.tga"))
    assert texture_color(mesh)[2] > 250
    assert mesh.notes == ["texture '/home/me/metal.tga' not found; 'metal.jpg' is used"]


@pytest.mark.parametrize(("value", "name", "scale", "offset"), [
    ("t.png", "t.png", (1, 1), (0, 0)), ("-s 2 t.png", "t.png", (2, 1), (0, 0)),
    ("-s 2 3 t.png", "t.png", (2, 3), (0, 0)), ("-o 0.5 -s 2 3 1 my t.png", "my t.png", (2, 3), (0.5, 0)),
    ("-o .5 -.25 0 2 t.png", "2 t.png", (1, 1), (0.5, -0.25)), ("-s 1 1 1 7", "7", (1, 1), (0, 0)),
    ("-clamp on -bm 1 -blendu off -mm 0 1 -texres 512 t.png", "t.png", (1, 1), (0, 0)),
    ("-bm t.png", "t.png", (1, 1), (0, 0)), ("-S 2 2 t.png", "t.png", (2, 2), (0, 0)),
    ("none", "", (1, 1), (0, 0)),
    ('"my t.png"', "my t.png", (1, 1), (0, 0)), ("-imfchan m t.png", "t.png", (1, 1), (0, 0)),
])  # fmt: skip
def test_options_of_a_map_have_as_many_numbers_as_there_are(value, name, scale, offset):
    found = parse_map(value)
    assert (found.name, found.scale, found.offset) == (name, scale, offset)
    assert found.clamp == ("-clamp on" in value)


def test_scale_and_offset_of_a_map_move_its_coordinates(tmp_path):
    mesh = read(
        tmp_path, "mtllib a.mtl\n" + TEXTURED, a_mtl="newmtl m\nmap_Kd -s 2 3 -o 0.5 -1 t.png\n", t_png="red"
    )
    np.testing.assert_allclose(mesh.surfaces[0].uv[0], [[0.5, -1], [2.5, -1], [2.5, 2]])


def test_a_clamped_map_ends_in_its_edge_and_a_glow_lies_where_its_own_options_say(tmp_path):
    library = "newmtl m\nmap_Kd -clamp on t.png\nmap_Ke -s 2 2 t.png\n"
    (surface,) = read(tmp_path, "mtllib a.mtl\n" + TEXTURED, a_mtl=library, t_png="red").surfaces
    assert surface.material.base_sampler.wrap_u == surface.material.base_sampler.wrap_v == "clamp"
    assert surface.material.emission_sampler.wrap_u == "repeat"
    np.testing.assert_allclose(surface.emission_uv, 2 * surface.uv)


def test_options_that_are_not_drawn_are_noted(tmp_path):
    found, notes = material(tmp_path, "map_Kd -t 0.1 0.1 0.1 -mm 0.2 0.5 t.png\n", t=Image.new("RGB", (2, 2)))
    assert found.material.base_image is not None
    assert notes == ["option -t of map_kd is not drawn", "option -mm of map_kd is not drawn"]


def half(mode: str = "RGB", left=255, right=0) -> Image.Image:
    image = Image.new("L", (32, 32), right)
    image.paste(left, (0, 0, 16, 32))
    return image.convert(mode)


def alpha_of(found) -> list[int]:
    image = found.material.base_image
    return [image.getpixel((0, 0))[3], image.getpixel((image.width - 1, 0))[3]]


def test_map_d_is_the_opacity_by_brightness_or_by_its_alpha_or_the_channel_it_names(tmp_path):
    red = Image.new("RGB", (64, 64), "red")
    found, notes = material(tmp_path, "Kd 0 0 1\nmap_Kd t.png\nmap_d d.png\n", t=red, d=half("L"))
    assert (alpha_of(found), found.material.alpha_mode, notes) == ([255, 0], "mask", [])
    assert found.material.base_image.size == (64, 64) and found.material.base_image.getpixel((0, 0))[0] == 255
    leaf = red.resize((32, 32)).convert("RGBA")
    leaf.putalpha(half("L", 0, 255))
    found, _ = material(tmp_path, "map_Kd t.png\nmap_d t.png\n", t=leaf)
    assert alpha_of(found) == [0, 255]
    bands = Image.merge("RGB", [half("L", 0, 255), half("L"), half("L")])
    found, _ = material(tmp_path, "map_d -imfchan r t.png\nd 0.5\nKd 0 0 1\n", t=bands)
    assert alpha_of(found) == [0, 255] and found.material.base_color[2:] == (1, 0.5)
    found, notes = material(tmp_path, "map_Kd t.png\nmap_d d.png\nd 0\n", t=red, d=half("L"))
    assert found.material.base_color[3] == 1 and "map_d alone" in notes[0]


def test_a_texture_of_alpha_0_everywhere_is_noted(tmp_path):
    found, notes = material(tmp_path, "map_Kd t.png\n", t=Image.new("RGBA", (2, 2), (255, 0, 0, 0)))
    assert found.material.alpha_mode == "opaque" and notes == [
        "a texture has alpha 0 everywhere; drawn opaque"
    ]


@pytest.mark.parametrize(("lines", "opacity", "num_notes"), [
    ("Tr 1.0\n", 1, 1), ("Tr 0\n", 1, 0), ("Tr 0.75\n", 0.25, 0), ("d 0.5\nTr 1\n", 0.5, 0),
    ("d 1\nTr 1\n", 1, 0), ("d -halo 0.25\n", 0.25, 0), ("d 0\n", 0, 0),
])  # fmt: skip
def test_opacity_from_d_and_tr(tmp_path, lines, opacity, num_notes):
    found, notes = material(tmp_path, "Kd 1 0 0\n" + lines)
    assert found.material.base_color[3] == opacity and len(notes) == num_notes


@pytest.mark.parametrize(("ke", "expected"), [("", 1.0), ("Ke 0 0 0\n", 1.0), ("Ke 0.5 0.5 0.5\n", 0.5)])
def test_map_ke_is_the_texture_of_what_glows(tmp_path, ke, expected):
    found, notes = material(tmp_path, ke + "map_Ke g.png\n", g=Image.new("RGB", (2, 2), "red"))
    assert found.material.emission_image.getpixel((0, 0)) == (255, 0, 0) and notes == []
    np.testing.assert_allclose(found.material.emission, srgb_to_linear(np.full(3, expected)))


def test_map_ka_does_where_there_is_no_map_kd_and_colours_that_are_none_are_noted(tmp_path):
    found, notes = material(tmp_path, "map_Ka t.png\nKe spectral x.rfl\n", t=Image.new("RGB", (2, 2), "red"))
    assert found.material.base_image is not None and notes == ["Ke 'spectral x.rfl' is no colour"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_files_with_a_byte_order_mark(tmp_path, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    library = (mark + "newmtl m\r\nmap_Kd größe.png\r\n").encode(encoding)
    Image.new("RGB", (2, 2), "red").save(tmp_path / "größe.png")
    mesh = read(tmp_path, (mark + "mtllib a.mtl\r\n" + TEXTURED).encode(encoding), a_mtl=library)
    assert texture_color(mesh) == (255, 0, 0) and mesh.notes == []


@pytest.mark.parametrize(("name", "encoding"), [
    ("Stuhl größe", "cp1252"), ("Stuhl größe", "utf-8"), ("椅子", "utf-8"), ("椅子", "gb18030"),
    ("椅子", "cp932"),
    ("стул", "cp1251"), ("イス", "cp932"),
])  # fmt: skip
def test_names_far_into_a_file_in_any_encoding_beside_others_in_utf8(tmp_path, monkeypatch, name, encoding):
    monkeypatch.setattr(obj_lines, "_BLOCK_BYTES", 1000)
    raw = name.encode(encoding)
    Image.new("RGB", (2, 2), "red").save(tmp_path / f"{name}.png")
    far = "# héllo\n" + "v 0 0 0\n" * 9000
    head = ("mtllib a.mtl\n" + TEXTURED.partition("usemtl")[0] + far).encode()
    obj = head + b"usemtl " + raw + b"\nf 1/1 2/2 3/3 4/4\n"
    mesh = read(tmp_path, obj, a_mtl=b"newmtl " + raw + b"\nmap_Kd " + raw + b".png\n")
    assert texture_color(mesh) == (255, 0, 0) and mesh.notes == []


@pytest.mark.parametrize("block", [8, 30, 1 << 20])
def test_blocks_change_nothing(tmp_path, monkeypatch, block):
    monkeypatch.setattr(obj_lines, "_BLOCK_BYTES", block)
    obj = (
        SQUARE
        + "vn 0 0 1\n"
        + UV
        + "f 1/1/1 2/2/1 \\\n3/3/1\r\nusemtl a\nf -4//-1 -2//1 4//-1\nf\t1 \\\r\n 2\t3\n"
    )
    obj += "  v 5 5 5\nvn 1 0 0\nf -1/-1/-1 1/1/1 2/2/1\nusemtl b\n"
    obj += "f 1// 2/2 3/3/ 4 # a comment\n f 1 2\nfo 1 2 3\n"
    mesh = read(tmp_path, obj)
    corners = {tuple(map(tuple, t)) for s in mesh.surfaces for t in s.positions.tolist()}
    a, b, c, d, e = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, 0.0), (5.0, 5.0, 5.0))
    assert corners == {(a, b, c), (a, c, d), (e, a, b)}
    assert mesh.num_triangles == 7
    assert mesh.notes == ["material 'a' not found; grey is used", "material 'b' not found; grey is used"]
    with_normals = [s for s in mesh.surfaces if s.normals is not None]
    assert sum(s.num_triangles for s in with_normals) == 3
    assert sum(s.num_triangles for s in mesh.surfaces if s.uv is not None) == 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(tmp_path, end):
    assert read(tmp_path, (SQUARE + "f 1 2 3 4\n").replace("\n", end)).num_triangles == 2


@pytest.mark.parametrize(("lines", "reason"), [
    *((line, "points before the first element") for line in
      ("f 0 1 2\n", "f 1 2 -9\n", "f 1/1 2/0 3/1\n", "f 1/1 2/0 3\n")),
    ("f 1 2 7\n", "names vertex 7 of 4"), ("f 1 2 x\n", "invalid literal"),
    ("f /1 /2 /3\n", "names no vertex"),
    ("v 0,5 1 0\nf 1 2 3\n", "'0,5' is no number"), ("f 1 2 99999999999\n", "is too large"),
])  # fmt: skip
def test_what_a_face_or_a_number_cannot_mean_is_refused(tmp_path, lines, reason):
    with pytest.raises(UnrenderableMesh, match=reason):
        read(tmp_path, SQUARE + lines)


@pytest.mark.parametrize("bad", ["nan", "-nan(ind)", "1.#QNAN", "-1.#IND"])
def test_nan_as_windows_writes_it_is_nan(tmp_path, bad):
    mesh = read(tmp_path, SQUARE.replace("v 1 1 0", f"v 1 {bad} 0") + "f 1 2 4\nf 1 2 3\n")
    assert np.isfinite(mesh.surfaces[0].positions).all(axis=(1, 2)).tolist() == [True, False]


def test_free_form_surfaces_are_noted(tmp_path):
    mesh = read(tmp_path, SQUARE + "f 1 2 3\ndeg 3 3\ncstype bspline\nsurf 0 1 0 1 1 2 3 4\nend\n")
    assert mesh.notes == ["has curves or surfaces that are no polygons; they are not drawn"]


def test_keywords_may_be_upper_case(tmp_path):
    obj = "MTLLIB A.MTL\n" + SQUARE.upper() + "USEMTL m\nF 1 2 3 4\n"
    mesh = read(tmp_path, obj, a_mtl="newmtl m\nKd 1 0 0\n")
    assert mesh.num_triangles == 2 and not mesh.notes
    assert mesh.surfaces[0].material.base_color == (1.0, 0.0, 0.0, 1.0)


def test_polypaint_is_the_colours_of_vertices(tmp_path):
    """ZBrush writes `#MRGB` and eight hexadecimal digits for each: mask, red, green, blue."""
    obj = SQUARE + "#MRGB ffff0000ff00ff00\n#MRGB ff0000ff\nf 1 2 3 4\n"
    (surface,) = read(tmp_path, obj).surfaces
    corners, colors = surface.positions.reshape(-1, 3), surface.colors.reshape(-1, 4)
    by_place = {tuple(at): tuple(color) for at, color in zip(corners, colors, strict=True)}
    assert by_place[0, 0, 0] == (1, 0, 0, 1) and by_place[1, 0, 0] == (0, 1, 0, 1)
    assert by_place[1, 1, 0] == (0, 0, 1, 1) and by_place[0, 1, 0] == UNCOLORED
    for broken in ("#MRGB ffff00zz", "#MRGB ffff00", "#MRGB"):
        assert read(tmp_path, SQUARE + broken + "\nf 1 2 3 4\n").surfaces[0].colors is None


def test_kd_of_0_to_255_is_read_as_such_with_a_note(tmp_path):
    drawn, notes = material(tmp_path, "Kd 128 0 255")
    np.testing.assert_allclose(drawn.material.base_color[:3], srgb_to_linear(np.array([128 / 255, 0, 1])))
    assert notes == ["Kd '128 0 255' is read as a colour of 0 to 255"]


@pytest.mark.parametrize("line", ["bump x.png", "map_Bump -bm 0.3 x.png", "norm x.png", "map_Tr x.png"])
def test_maps_that_are_not_drawn_are_noted(tmp_path, line):
    _, notes = material(tmp_path, "Kd 1 0 0\n" + line)
    kind = "transparency map" if "Tr" in line else "normal map"
    assert notes == [f"drawn without: {kind} (1)"]
