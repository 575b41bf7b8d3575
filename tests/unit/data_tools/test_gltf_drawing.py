"""What glTF's materials and windings look like, drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")

from data_tools.engines import EngineUnavailable, make_engine
from data_tools.meshes.load import load_mesh
from data_tools.shared.colors import srgb_to_linear
from data_tools.shared.plan import make_plan
from tests.gltf_files import GltfFile, color

SIZE = 64
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=float)
TWO_TRIANGLES, OTHER_TRIANGLES = [0, 1, 2, 0, 2, 3], [1, 2, 3, 1, 3, 0]
UV = (SQUARE[:, :2] * (1, -1) + 1) / 2
CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
OUTWARDS = [
    0, 1, 3, 0, 3, 2, 4, 6, 7, 4, 7, 5, 0, 4, 5, 0, 5, 1,
    2, 3, 7, 2, 7, 6, 0, 2, 6, 0, 6, 4, 1, 5, 7, 1, 7, 3,
]  # fmt: skip


@pytest.fixture(scope="module")
def engine():
    try:
        made = make_engine("opengl", supersample=1)
    except EngineUnavailable as error:
        pytest.skip(str(error))
    yield made
    made.close()


def draw(engine, file: GltfFile, folder: Path, **options) -> list:
    """The four canonical views, from +z, +x, -z, -x."""
    plan = make_plan(resolution=SIZE, num_views=4, **options).for_object({"uid": "a"})
    return list(engine.render(file.save(folder), plan)[0])


def middle(view: np.ndarray) -> list[int]:
    return view[SIZE // 2 - 1, SIZE // 2 - 1].tolist()


def sheet(file: GltfFile, material: int, triangles=TWO_TRIANGLES, scale: float = 1.0, **attributes) -> dict:
    position = file.accessor(SQUARE * scale)
    return file.primitive(material, file.accessor(triangles, "uint16"), POSITION=position, **attributes)


def glowing(file: GltfFile, rgb, **more) -> int:
    """A colour that is the same from all sides."""
    base = {"baseColorFactor": [*srgb_to_linear(np.array(rgb) / 255), 1]}
    return file.add("materials", pbrMetallicRoughness=base, extensions={"KHR_materials_unlit": {}}, **more)


def test_unlit_is_its_own_colour_from_all_sides(engine, tmp_path):
    file = GltfFile()
    position = file.accessor(CUBE)
    file.node(
        file.primitive(glowing(file, (200, 90, 7)), file.accessor(OUTWARDS, "uint8"), POSITION=position)
    )
    for view in draw(engine, file, tmp_path):
        np.testing.assert_allclose(middle(view), [200, 90, 7, 255], atol=1)


@pytest.mark.parametrize(("wrap", "first"), [(10497, GREEN), (33071, RED), (33648, RED), (None, GREEN)])
@pytest.mark.parametrize("axis", [0, 1])
def test_textures_go_on_as_their_sampler_says(engine, tmp_path, wrap, first, axis):
    """Red, then green; seen from -1 to 2. What lies left of 0 is told by the sampler."""
    image = Image.new("RGB", (32, 32), RED)
    image.paste(GREEN, (16, 0, 32, 32) if axis == 0 else (0, 16, 32, 32))
    file = GltfFile()
    sampler = {} if wrap is None else {"sampler": file.add("samplers", wrapS=wrap, wrapT=wrap)}
    base = {"baseColorTexture": {"index": file.texture(image, **sampler)}}
    material = file.add("materials", pbrMetallicRoughness=base, extensions={"KHR_materials_unlit": {}})
    file.node(sheet(file, material, TEXCOORD_0=file.accessor(UV * 3 - 1)))
    view = draw(engine, file, tmp_path)[0]
    at = [SIZE // 2, SIZE // 2]
    at[1 - axis] = 24  # a little left of, or above, the middle third's beginning
    assert view[tuple(at)].tolist()[:3] == list(first)


def test_nearest_texels_have_edges(engine, tmp_path):
    image = Image.new("RGB", (2, 2), RED)
    image.paste(BLUE, (1, 0, 2, 2))
    for nearest in (True, False):
        file = GltfFile()
        sampler = {"sampler": file.add("samplers", magFilter=9728)} if nearest else {}
        base = {"baseColorTexture": {"index": file.texture(image, **sampler)}}
        material = file.add("materials", pbrMetallicRoughness=base, extensions={"KHR_materials_unlit": {}})
        file.node(sheet(file, material, TEXCOORD_0=file.accessor(UV)))
        row = draw(engine, file, tmp_path)[0][SIZE // 2]
        mixed = ((row[:, 0] > 20) & (row[:, 2] > 20)).sum()
        assert mixed <= 1 if nearest else mixed > 6


def test_an_edge_has_nothing_of_the_opposite_edge(engine, tmp_path):
    image = Image.new("RGB", (8, 8), RED)
    image.paste(GREEN, (4, 0, 8, 8))
    file = GltfFile()
    base = {"baseColorTexture": {"index": file.texture(image)}}
    material = file.add("materials", pbrMetallicRoughness=base, extensions={"KHR_materials_unlit": {}})
    file.node(sheet(file, material, TEXCOORD_0=file.accessor(UV)))
    row = draw(engine, file, tmp_path)[0][SIZE // 2]
    inside = row[row[:, 3] > 0]
    assert (inside[:4, 1] == 0).all() and (inside[-4:, 0] == 0).all()


def test_emission_has_coordinates_of_its_own(engine, tmp_path):
    image = Image.new("RGB", (32, 32), RED)
    image.paste(BLUE, (0, 16, 32, 32))
    file = GltfFile()
    texture = file.texture(image)
    black = file.texture(color(0, 0, 0))
    material = file.add(
        "materials", pbrMetallicRoughness={"baseColorTexture": {"index": black}}, emissiveFactor=[1, 1, 1],
        emissiveTexture={"index": texture, "texCoord": 1},
    )  # fmt: skip
    turned = UV[:, ::-1]
    file.node(sheet(file, material, TEXCOORD_0=file.accessor(UV), TEXCOORD_1=file.accessor(turned)))
    view = draw(engine, file, tmp_path)[0]
    assert view[32, 24, :3].tolist() == list(RED) and view[32, 40, :3].tolist() == list(BLUE)


@pytest.mark.parametrize("double_sided", [True, False])
@pytest.mark.parametrize("others", [TWO_TRIANGLES, OTHER_TRIANGLES])
@pytest.mark.parametrize("turn", [0.0, 0.3, 1.0])
def test_of_two_sheets_back_to_back_each_is_seen_from_its_own_side(
    engine, tmp_path, double_sided, others, turn
):
    file = GltfFile()
    front, back = (glowing(file, rgb, doubleSided=double_sided) for rgb in (RED, BLUE))
    sheets = [sheet(file, front), sheet(file, back, others[::-1])]
    file.node(*sheets[:: 1 if turn else -1], rotation=[0, np.sin(turn / 2), 0, np.cos(turn / 2)])
    views = draw(engine, file, tmp_path, geometry=True)
    for view, rgb in ((views[0], RED), (views[2], BLUE)):
        inside = view.image[view.image[..., 3] == 255][:, :3]
        assert len(inside) > 300 and (inside == rgb).all(axis=1).mean() > 0.995


def test_a_single_sheet_is_seen_from_both_sides(engine, tmp_path):
    file = GltfFile()
    file.node(sheet(file, glowing(file, GREEN, doubleSided=False)))
    views = draw(engine, file, tmp_path)
    assert middle(views[0]) == middle(views[2]) == [0, 255, 0, 255]


def test_an_inverted_hull_is_an_outline(engine, tmp_path):
    file = GltfFile()
    position, shell = file.accessor(CUBE), file.accessor(CUBE * 1.08)
    body = file.primitive(glowing(file, GREEN), file.accessor(OUTWARDS, "uint8"), POSITION=position)
    hull = file.primitive(
        glowing(file, (10, 10, 10), doubleSided=False), file.accessor(OUTWARDS[::-1], "uint8"), POSITION=shell
    )
    file.node(body, hull)
    mesh = load_mesh(file.save(tmp_path), "sphere", np.eye(4), 100)
    assert mesh.notes == ["inverted hull around the rest, as outlines are drawn; its inner side is drawn"]
    views = draw(engine, file, tmp_path, geometry=True)
    for view in views:
        assert middle(view.image) == [0, 255, 0, 255]
        inside = view.image[view.image[..., 3] == 255][:, :3]
        assert (inside == (10, 10, 10)).all(axis=1).mean() > 0.05  # all around it
    half = 0.6 / np.sqrt(3) / 1.08
    assert views[0].depth[SIZE // 2, SIZE // 2] == pytest.approx(1.5 - half, abs=1e-3)
    # A lone one, wound the wrong way round, is an object as any other.
    file = GltfFile()
    file.node(
        file.primitive(
            glowing(file, GREEN), file.accessor(OUTWARDS[::-1], "uint8"), POSITION=file.accessor(CUBE)
        )
    )
    assert load_mesh(file.save(tmp_path), "sphere", np.eye(4), 100).notes == []
