"""Renders of meshes in the place of generated views, in both projections."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.meshes.load import load_mesh
from data_tools.meshes.surfaces import Material, Mesh, Sampler, Surface
from lgm.meshing import Mesh as TexturedMesh
from lgm.meshing import save_mesh
from lgm.multiview.mesh_skins import skinned
from lgm.multiview.mesh_views import MeshViews
from lgm.types import ViewPrompt

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (40, 60, 220)


def box(size=(1.0, 2.0, 1.0)) -> TexturedMesh:
    """Red in front (+z), green on the right (+x), blue everywhere else."""
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
    quads = [(1, 5, 7, 3), (5, 4, 6, 7), (4, 0, 2, 6), (0, 1, 3, 2), (3, 7, 6, 2), (0, 4, 5, 1)]
    faces = torch.tensor([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))])
    texture = torch.tensor([[RED, GREEN, BLUE, BLUE]], dtype=torch.float32).repeat(4, 1, 1) / 255
    uvs = torch.tensor([[1 / 8, 0.5], [3 / 8, 0.5], [7 / 8, 0.5]])
    colors = torch.tensor([0, 0, 1, 1] + [2] * 8)
    return TexturedMesh(corners * torch.tensor(size) / 2, faces, uvs, colors[:, None].expand(12, 3), texture)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    save_mesh(box(), folder / "box.glb")
    return folder


def made(folder, text="box", **options):
    views = MeshViews(folder, load_mesh, size=64, accelerator="cpu", **options)
    views.prepare()
    return views([ViewPrompt(text)])[0]


def hue(views, number):
    """The colour in the middle of a view, as the brightest channel."""
    return int(views.images[number, :, 32, 32].argmax())


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
def test_sides_come_in_the_order_of_their_azimuths(folder, projection):
    views = made(folder, projection=projection)
    assert views.posed and views.images.shape == (4, 3, 64, 64) and views.masks.shape == (4, 1, 64, 64)
    assert [hue(views, number) for number in range(4)] == [0, 1, 2, 2]
    assert views.cameras.azimuth_deg.tolist() == pytest.approx([0, 90, 180, 270])


def test_an_orthographic_view_is_a_plan(folder):
    """The box is 0.6 from its centre to its corners: 0.98 high and 0.49 wide, whatever its depth."""
    views = made(folder, projection="orthographic", height=1.28)
    height, width = 2 * 0.6 / 6**0.5 * np.array([2.0, 1.0])
    for mask in views.masks[:, 0]:
        rows, columns = mask.sum(0).max(), mask.sum(1).max()
        assert float(rows) == pytest.approx(height / 1.28 * 64, abs=0.3)
        assert float(columns) == pytest.approx(width / 1.28 * 64, abs=0.3)
    assert views.cameras.is_orthographic.all()


def test_from_above(folder):
    views = made(folder, elevation_deg=60.0, azimuths_deg=[0.0])
    top = views.images[0, :, 10]  # a row of its top
    assert (views.cameras.elevation_deg - 60).abs().max() < 1e-3
    assert int(top[:, 32].argmax()) == 2 and int(views.images[0, :, 45, 32].argmax()) == 0


def test_settings_change_with_what_decides(folder):
    make = partial(MeshViews, folder, load_mesh, accelerator="cpu")
    assert make().settings == make().settings
    for other in ({"projection": "orthographic"}, {"size": 64}, {"elevation_deg": 10}):
        assert make(**other).settings != make().settings


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: made(f, "chair"), r"'chair' names no mesh of .* holds box.glb"),
        (lambda f: made(f / "none"), "none is not a folder"),
        (lambda f: made(f, projection="fisheye"), "multiview.projection=fisheye is not one of"),
        (lambda f: made(f, azimuths_deg=[]), "azimuths_deg=.. names no view"),
        (lambda f: made(f, supersampling=0), "multiview.supersampling=0"),
        (
            lambda f: MeshViews(f, load_mesh, accelerator="cpu")(
                [ViewPrompt("", np.zeros((2, 2, 4), np.uint8))]
            ),
            "takes no image",
        ),
    ],
)
def test_what_is_of_no_use_is_one_line(folder, call, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        call(folder)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_mesh_is_one_line(tmp_path):
    (tmp_path / "broken.glb").write_bytes(b"glTF" + bytes(40))
    with pytest.raises(ValueError, match=r"broken\.glb") as caught:
        made(tmp_path, "broken")
    assert "\n" not in str(caught.value)


def surface(uv=None, colors=None, **material):
    positions = np.array([[[-1.0, -1, 0], [1, -1, 0], [1, 1, 0]], [[-1, -1, 0], [1, 1, 0], [-1, 1, 0]]])
    normals = np.broadcast_to(np.array([0.0, 0, 1]), (2, 3, 3))
    return Surface(positions, Material(**material), normals, uv, colors)


def quad_uv(repeat):
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    return square[[[0, 1, 2], [0, 2, 3]]] * repeat


def looked_up(mesh, u, v):
    """The texel of a skinned quad at a place of its own, counted from its lower left corner."""
    a, b, _, d = mesh.uvs[0], mesh.uvs[1], mesh.uvs[2], mesh.uvs[5]
    place = a + u * (b - a) + v * (d - a)
    texture = mesh.textures[0]
    column, row = (place * len(texture)).astype(int).clip(0, len(texture) - 1)
    return tuple(int(x) for x in texture[row, column])


@pytest.mark.parametrize(
    ("wrap", "second"), [("repeat", (RED, GREEN)), ("mirror", (GREEN, RED)), ("clamp", (GREEN, GREEN))]
)
def test_textures_that_go_on_beyond_their_edges(wrap, second):
    image = Image.fromarray(np.array([[RED, GREEN]] * 2, np.uint8).repeat(8, 0).repeat(8, 1))
    mesh = skinned(
        Mesh(
            [surface(quad_uv([2, 1]), base_color=(1, 1, 1, 1), base_image=image, base_sampler=Sampler(wrap))]
        )
    )
    seen = [looked_up(mesh, (k + 0.5) / 4, 0.5) for k in range(4)]
    if wrap == "clamp":  # its coordinates stay beyond 1, and the renderer holds the edge
        seen = [*seen[:2], looked_up(mesh, 0.9, 0.5), looked_up(mesh, 0.9, 0.5)]
    assert np.abs(np.array(seen) - np.array([RED, GREEN, *second])).max() <= 12


def test_upright_textures_colours_of_vertices_and_notes():
    image = Image.fromarray(np.array([[RED], [BLUE]], np.uint8).repeat(4, 0).repeat(8, 1))  # red above
    upright = skinned(Mesh([surface(quad_uv(1), base_color=(1, 1, 1, 1), base_image=image)]))
    assert looked_up(upright, 0.5, 0.9)[0] > 200 and looked_up(upright, 0.5, 0.1)[2] > 200
    half = np.full((2, 3, 4), 0.5)
    colored = skinned(Mesh([surface(colors=half, base_color=(1, 0.5, 0, 1), alpha_mode="blend")], ["a note"]))
    assert looked_up(colored, 0.2, 0.1) == (188, 137, 0)  # sRGB of 0.5, 0.25 and 0
    assert "a note" in colored.notes and any("opaque" in note for note in colored.notes)
    both = skinned(Mesh([surface(base_color=(1, 0, 0, 1)), surface(base_color=(0, 1, 0, 1))]))
    assert both.skins.tolist() == [0, 0, 1, 1]
    assert [texture[0, 0].tolist() for texture in both.textures] == [[255, 0, 0], [0, 255, 0]]
