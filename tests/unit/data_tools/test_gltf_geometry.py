"""glTF's geometry: accessors of every form, primitives, nodes, skins, morph targets, packed buffers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mapbox_earcut", reason="it is missing; pip install 'lgm-training[render]'")

from data_tools.meshes.gltf import read_gltf
from data_tools.meshes.load import load_mesh
from data_tools.meshes.normals import face_normals
from data_tools.meshes.surfaces import Mesh, UnrenderableMesh
from tests.gltf_files import FACES, INDICES, POSITIONS, UV, GltfFile, color

ANY = 10**9


def read(file: GltfFile, folder: Path, name: str = "a.glb") -> Mesh:
    return read_gltf(file.save(folder, name), ANY)


def only(file: GltfFile, folder: Path):
    mesh = read(file, folder)
    assert mesh.notes == []
    (surface,) = mesh.surfaces
    return surface


def quantized(values: np.ndarray, number: str) -> np.ndarray:
    return np.round(values / np.abs(values).max() * np.iinfo(number).max)


@pytest.mark.parametrize("name", ["a.glb", "a.gltf"])
@pytest.mark.parametrize("number", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("normalized", [True, False])
def test_positions_of_every_number_type(tmp_path, name, number, normalized):
    file = GltfFile(extensionsRequired=["KHR_mesh_quantization"])
    stored = quantized(POSITIONS, number)
    stride = 4 if number.endswith("8") else 8
    position = file.accessor(stored, number, stride=stride, normalized=normalized)
    file.node(file.primitive(POSITION=position, indices=file.accessor(INDICES, "uint8")))
    (surface,) = read(file, tmp_path, name).surfaces
    expected = FACES / 3 if normalized else stored[INDICES].reshape(2, 3, 3)
    np.testing.assert_allclose(surface.positions, expected, atol=1.01 / np.iinfo(number).max / 2)


def test_minus_128_is_minus_1(tmp_path):
    file = GltfFile()
    position = file.accessor([[-128, 0, 0], [127, 0, 0], [-127, 127, 0]], "int8", stride=4, normalized=True)
    file.node(file.primitive(POSITION=position))
    np.testing.assert_allclose(only(file, tmp_path).positions[0], [[-1, 0, 0], [1, 0, 0], [-1, 1, 0]])


@pytest.mark.parametrize("number", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("width", [3, 4])
def test_colours_of_every_form_are_linear_light(tmp_path, number, width):
    colors = np.array([[1, 0, 0, 1], [0.5, 0.25, 0, 1], [0.004, 0.1, 1, 0.5], [0, 0, 0, 1]])[:, :width]
    top = 1 if number == "float32" else np.iinfo(number).max
    file = GltfFile()
    stored = file.accessor(np.round(colors * top) if top > 1 else colors, number, normalized=top > 1)
    file.node(file.primitive(COLOR_0=stored))
    expected = np.ones((4, 4))
    expected[:, :width] = colors
    tolerance = 1e-6 if top == 1 else 0.51 / top
    np.testing.assert_allclose(
        only(file, tmp_path).colors, expected[INDICES].reshape(2, 3, 4), atol=tolerance
    )


@pytest.mark.parametrize("number", ["uint8", "uint16"])
def test_texture_coordinates_of_integers_begin_at_the_upper_left(tmp_path, number):
    file = GltfFile()
    material = file.textured(color(255, 0, 0))
    top = np.iinfo(number).max
    file.node(file.primitive(material, TEXCOORD_0=file.accessor(np.round(UV * top), number, normalized=True)))
    expected = UV * (1, -1) + (0, 1)
    uv = only(file, tmp_path).uv
    np.testing.assert_allclose(uv, expected[INDICES].reshape(2, 3, 2), atol=0.51 / top)


@pytest.mark.parametrize("stored", [True, False])
def test_a_sparse_accessor_replaces_elements_also_of_none(tmp_path, stored):
    file = GltfFile()
    where, values = np.array([1, 2, 3]), POSITIONS[1:]
    sparse = {
        "count": 3,
        "indices": {"bufferView": file.view(where.astype("<u2").tobytes()), "componentType": 5123},
        "values": {"bufferView": file.view(values.tobytes())},
    }
    base = np.zeros_like(POSITIONS)
    position = file.accessor(base, sparse=sparse)
    if not stored:
        del file.json["accessors"][position]["bufferView"]
    file.node(file.primitive(POSITION=position, indices=file.accessor(INDICES, "uint16")))
    np.testing.assert_array_equal(only(file, tmp_path).positions, FACES)


@pytest.mark.parametrize("number", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize(
    ("mode", "order", "faces"),
    [
        (4, [0, 1, 2, 0, 2, 3, 1], [[0, 1, 2], [0, 2, 3]]),
        (5, [0, 1, 3, 2], [[0, 1, 3], [1, 2, 3]]),
        (6, [0, 1, 2, 3], [[1, 2, 0], [2, 3, 0]]),
    ],
)
def test_lists_strips_and_fans_face_one_way(tmp_path, number, mode, order, faces):
    file = GltfFile()
    primitive = file.primitive(POSITION=file.accessor(POSITIONS), indices=file.accessor(order, number))
    file.node({**primitive, "mode": mode})
    surface = only(file, tmp_path)
    np.testing.assert_array_equal(surface.positions, POSITIONS[faces])
    assert (face_normals(surface.positions)[:, 2] > 0).all()


def test_a_fan_without_indices(tmp_path):
    file = GltfFile()
    file.node({**file.primitive(POSITION=file.accessor(POSITIONS)), "mode": 6})
    assert only(file, tmp_path).num_triangles == 2


def test_points_and_lines_are_noted(tmp_path):
    file = GltfFile()
    position = file.accessor(POSITIONS)
    parts = [{"attributes": {"POSITION": position}, "mode": mode} for mode in (0, 1, 2, 3)]
    file.node(file.primitive(), *parts, {"attributes": {}})
    mesh = read(file, tmp_path)
    assert len(mesh.surfaces) == 1
    assert mesh.notes == ["drawn without: lines (3), points (1), primitive without positions (1)"]


def test_many_primitives_may_share_one_accessor(tmp_path):
    many = np.concatenate([np.random.default_rng(0).normal(size=(50, 3)), POSITIONS])
    file = GltfFile()
    position = file.accessor(many)
    file.node(file.primitive(POSITION=position, indices=file.accessor(INDICES + 50, "uint16")))
    np.testing.assert_allclose(only(file, tmp_path).positions, FACES)


def test_missing_normals_are_flat_and_stored_ones_stay(tmp_path):
    bent = POSITIONS.copy()
    bent[3, 2] = 0.3  # by less than the angle at which other formats' faces are smoothed
    file = GltfFile()
    primitive = file.primitive(POSITION=file.accessor(bent), indices=file.accessor(INDICES, "uint16"))
    file.node(primitive)
    surface = only(file, tmp_path)
    face = face_normals(surface.positions)
    face = face / np.linalg.norm(face, axis=1, keepdims=True)
    np.testing.assert_allclose(surface.normals, np.repeat(face[:, None], 3, axis=1), atol=1e-6)
    file = GltfFile()
    tilted = file.accessor(np.tile([0, 76, 102], (4, 1)), "int8", stride=4, normalized=True)
    file.node(file.primitive(NORMAL=tilted), rotation=[0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4)])
    np.testing.assert_allclose(only(file, tmp_path).normals[0, 0], [-0.6, 0, 0.8], atol=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_normal_that_is_none_is_made_anew_and_the_others_stay(tmp_path, bad):
    normals = np.tile([0, 0.6, 0.8], (4, 1))
    normals[1] = (0, bad, 0)
    file = GltfFile()
    file.node(file.primitive(NORMAL=file.accessor(normals)))
    stored = only(file, tmp_path).normals
    np.testing.assert_allclose(stored[0], [[0, 0.6, 0.8], [0, 0, 1], [0, 0.6, 0.8]], atol=1e-6)
    np.testing.assert_allclose(stored[1], np.tile([0, 0.6, 0.8], (3, 1)), atol=1e-6)


def test_nodes_below_cameras_and_lights_and_matrices_of_columns(tmp_path):
    matrix = np.array([[0, -2, 0, 5], [2, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]], dtype=float)
    file = GltfFile(cameras=[{"type": "perspective", "perspective": {"yfov": 1, "znear": 1}}])
    leaf = file.node(file.primitive(), translation=[0, 0, 1])
    light = file.node(children=[leaf], extensions={"KHR_lights_punctual": {"light": 0}}, scale=[1, 3, 1])
    camera = file.node(camera=0, matrix=matrix.T.ravel().tolist(), children=[light])
    file.add("scenes", nodes=[camera])
    expected = (FACES * (1, 3, 1) + (0, 0, 1)) @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(only(file, tmp_path).positions, expected)


@pytest.mark.parametrize("scale", [[-1, 1, 1], [1, -2, 1], [-1, -1, -1], [-1, 1, -1]])
def test_what_is_mirrored_keeps_its_front(tmp_path, scale):
    file = GltfFile()
    uv = file.accessor(UV)
    file.node(file.primitive(file.textured(color(9, 9, 9)), TEXCOORD_0=uv), scale=scale)
    surface = only(file, tmp_path)
    front = face_normals(surface.positions)[:, 2]
    assert (np.sign(front) == np.sign(scale[2])).all()  # where the mirrored sheet's own front looks
    corner = {tuple(p): tuple(t) for p, t in zip(POSITIONS * scale, UV * (1, -1) + (0, 1), strict=True)}
    for position, coordinate in zip(surface.positions.reshape(-1, 3), surface.uv.reshape(-1, 2), strict=True):
        assert corner[tuple(position)] == pytest.approx(tuple(coordinate))


def test_a_sheet_of_scale_zero_keeps_its_normals(tmp_path):
    file = GltfFile()
    file.node(file.primitive(NORMAL=file.accessor(np.tile([0, 0, 1], (4, 1)))), scale=[1e-5, 1e-5, 0])
    surface = only(file, tmp_path)
    np.testing.assert_allclose(surface.normals, np.broadcast_to([0, 0, 1], (2, 3, 3)))


def test_the_default_scene_is_drawn_and_others_are_noted(tmp_path):
    file = GltfFile(scene=1)
    for x in (0, 10, 20):
        file.node(file.primitive(), translation=[x, 0, 0])
    file.add("scenes", nodes=[0])
    file.add("scenes", nodes=[1], name="main")
    mesh = read(file, tmp_path)
    assert len(mesh.surfaces) == 1 and mesh.surfaces[0].positions.min() == 0
    assert mesh.surfaces[0].positions[..., 0].min() == 10
    assert mesh.notes == ["has 2 scenes; scene 1 'main' is drawn"]
    del file.json["scene"]
    assert read(file, tmp_path).surfaces[0].positions[..., 0].min() == 0
    del file.json["scenes"]
    assert len(read(file, tmp_path).surfaces) == 3


def test_nodes_that_say_so_are_invisible_with_all_below(tmp_path):
    file = GltfFile()
    below = file.node(file.primitive())
    hidden = {"KHR_node_visibility": {"visible": False}}
    above = file.node(file.primitive(), children=[below], extensions=hidden)
    shown = file.node(file.primitive(), translation=[7, 0, 0])
    file.add("scenes", nodes=[above, shown])
    assert only(file, tmp_path).positions[..., 0].min() == 7


def test_instances_are_moved_turned_and_scaled_within_their_node(tmp_path):
    file = GltfFile(extensionsRequired=["EXT_mesh_gpu_instancing"])
    turns = np.array([[0, 0, 0, 1], [0, 0, np.sqrt(0.5), np.sqrt(0.5)]])
    attributes = {
        "TRANSLATION": file.accessor([[1, 0, 0], [0, 0, 4]]),
        "ROTATION": file.accessor(turns * 32767, "int16", normalized=True),
        "SCALE": file.accessor([[1, 1, 1], [2, -2, 2]]),
    }  # fmt: skip
    file.node(
        file.primitive(),
        extensions={"EXT_mesh_gpu_instancing": {"attributes": attributes}},
        scale=[10, 10, 10],
    )
    surface = only(file, tmp_path)
    x, y = FACES[..., 0], FACES[..., 1]
    turned = np.stack([2 * y, 2 * x, 0 * x + 4], axis=-1)[:, [0, 2, 1]]  # mirrored, so wound the other way
    expected = 10 * np.concatenate([FACES + (1, 0, 0), turned])
    np.testing.assert_allclose(surface.positions, expected, atol=2e-3)
    assert surface.normals.shape == (4, 3, 3)


def test_morph_targets_are_added_by_the_nodes_weights_else_the_meshes(tmp_path):
    file = GltfFile()
    up = np.zeros_like(POSITIONS)
    up[2] = (0, 0, 4)
    primitive = file.primitive()
    primitive["targets"] = [
        {"POSITION": file.accessor(up)},
        {"POSITION": file.accessor(np.round(up / 4 * 127), "int8", stride=4, normalized=True)},
    ]
    node = file.node(primitive, mesh={"weights": [0.5, -1.0]})
    assert only(file, tmp_path).positions[0, 2, 2] == pytest.approx(1)
    file.json["nodes"][node]["weights"] = [0.25, 0.0]
    assert only(file, tmp_path).positions[0, 2, 2] == pytest.approx(1)
    del file.json["nodes"][node]["weights"], file.json["meshes"][0]["weights"]
    np.testing.assert_array_equal(only(file, tmp_path).positions, FACES)


def test_morph_targets_move_texture_coordinates_and_colours(tmp_path):
    file = GltfFile()
    primitive = file.primitive(
        file.textured(color(1, 2, 3)),
        TEXCOORD_0=file.accessor(UV),
        COLOR_0=file.accessor(np.full((4, 4), 0.5)),
    )
    targets = {
        "TEXCOORD_0": file.accessor(np.full((4, 2), 0.5)),
        "COLOR_0": file.accessor(np.full((4, 3), -1.0)),
    }
    primitive["targets"] = [targets]
    file.node(primitive, weights=[0.25])
    surface = only(file, tmp_path)
    np.testing.assert_allclose(surface.uv[0, 0], [0.25 + 0.125, 1 - 1.125])
    np.testing.assert_allclose(surface.colors[0, 0], [0.25, 0.25, 0.25, 0.5])


def skinned(weights: np.ndarray, joints: np.ndarray, **node) -> GltfFile:
    """Two joints: one at x = 1, one below it that turns by 90° about z."""
    file = GltfFile()
    half = np.sqrt(0.5)
    elbow = file.node(translation=[0, 0, 5], rotation=[0, 0, half, half])
    shoulder = file.node(translation=[1, 0, 0], children=[elbow])
    inverse = np.tile(np.eye(4), (2, 1, 1))
    inverse[1, 0, 3] = -3  # the second joint was bound at x = 3
    bind = file.accessor(inverse.transpose(0, 2, 1).reshape(2, 16))
    file.add("skins", joints=[shoulder, elbow], inverseBindMatrices=bind)
    more = {}
    for k in range(0, joints.shape[1], 4):
        more[f"JOINTS_{k // 4}"] = file.accessor(joints[:, k : k + 4], "uint8")
        more[f"WEIGHTS_{k // 4}"] = file.accessor(weights[:, k : k + 4])
    normal = file.accessor(np.tile([1, 0, 0], (4, 1)))
    body = file.node(file.primitive(NORMAL=normal, **more), skin=0, **node)
    file.add("scenes", nodes=[shoulder, body])
    return file


@pytest.mark.parametrize("sets", [1, 2])
def test_a_skin_places_vertices_by_its_joints_and_not_by_the_meshes_node(tmp_path, sets):
    joints = np.zeros((4, 4 * sets), dtype=int)
    weights = np.zeros((4, 4 * sets))
    joints[2:, -1] = 1  # in the last set
    weights[:2, 0], weights[2:, -1] = 1, 0.5  # weights need not add up to one
    file = skinned(weights, joints, translation=[100, 0, 0], scale=[9, 9, 9])
    surface = only(file, tmp_path)
    x, y, z = POSITIONS.T
    expected = np.where(joints[:, -1:] == 1, np.stack([1 - y, x - 3, z + 5], 1), POSITIONS + (1, 0, 0))
    np.testing.assert_allclose(surface.positions, expected[INDICES].reshape(2, 3, 3), atol=1e-6)
    np.testing.assert_allclose(surface.normals[0, 0], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(surface.normals[0, 2], [0, 1, 0], atol=1e-6)


def test_vertices_between_two_joints_and_without_any_weight(tmp_path):
    weights = np.zeros((4, 4))
    weights[0, :2] = 0.5
    surface = only(skinned(weights, np.tile([0, 1, 0, 0], (4, 1))), tmp_path)
    np.testing.assert_allclose(surface.positions[0, 0], (np.array([1, 0, 0]) + [1, -3, 5]) / 2, atol=1e-6)
    np.testing.assert_allclose(surface.positions[0, 1], POSITIONS[1] + (1, 0, 0))


def test_draco_is_unpacked_or_refused_by_name(tmp_path, monkeypatch):
    file = GltfFile(extensionsRequired=["KHR_draco_mesh_compression"])
    draco = pytest.importorskip("DracoPy", reason="DracoPy is missing; pip install 'lgm-training[gltf]'")
    packed = draco.encode(
        POSITIONS, faces=INDICES.reshape(2, 3), quantization_bits=20, tex_coord=UV.astype(np.float64),
        preserve_order=True,
    )  # fmt: skip
    ids = {a["data"].shape[1]: a["unique_id"] for a in draco.decode(packed).attributes}
    extension = {"bufferView": file.view(packed), "attributes": {"POSITION": ids[3], "TEXCOORD_0": ids[2]}}
    vec3 = file.add("accessors", componentType=5126, count=4, type="VEC3")
    vec2 = file.add("accessors", componentType=5126, count=4, type="VEC2")
    indices = file.add("accessors", componentType=5123, count=6, type="SCALAR")
    primitive = file.primitive(file.textured(color(1, 1, 1)), POSITION=vec3, TEXCOORD_0=vec2, indices=indices)
    file.node({**primitive, "extensions": {"KHR_draco_mesh_compression": extension}})
    surface = only(file, tmp_path)
    np.testing.assert_allclose(surface.positions, FACES, atol=1e-4)
    np.testing.assert_allclose(surface.uv[0, 0], [0.25, 0], atol=1e-4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnrenderableMesh, match="packed with KHR_draco_mesh_compression; pip install DracoPy"):
        read(file, tmp_path)


@pytest.mark.parametrize("name", ["EXT_meshopt_compression", "KHR_meshopt_compression"])
def test_meshopt_is_unpacked_or_refused_by_name(tmp_path, monkeypatch, name):
    meshopt = pytest.importorskip("meshopt", reason="meshopt is missing; pip install 'lgm-training[gltf]'")
    file = GltfFile(extensionsRequired=[name])
    version = 1 if name.startswith("KHR") else 0
    normals = meshopt.encode_filter_oct(np.tile([0, 0.6, 0.8, 1], (4, 1)), 4, 8)
    parts = [
        (POSITIONS, "ATTRIBUTES", "NONE", 12, "VEC3", 5126),
        (normals, "ATTRIBUTES", "OCTAHEDRAL", 4, "VEC3", 5120),
        (INDICES, "TRIANGLES", "NONE", 2, "SCALAR", 5123),
    ]
    accessors = []
    for values, mode, filtered, stride, kind, number in parts:
        packed = meshopt.encode_gltf_buffer(values, mode, version)
        view = file.view(packed)
        extension = {
            **file.json["bufferViews"][view],
            "byteStride": stride,
            "count": len(values),
            "mode": mode,
        }
        entry = {
            "buffer": 1,
            "byteLength": len(values) * stride,
            "extensions": {name: {**extension, "filter": filtered}},
        }
        if mode == "ATTRIBUTES":
            entry["byteStride"] = stride
        file.json["bufferViews"][view] = entry
        accessors.append(
            file.add("accessors", bufferView=view, componentType=number, count=len(values), type=kind,
                     normalized=number == 5120)
        )  # fmt: skip
    position, normal, indices = accessors
    file.json["buffers"] = [
        {"byteLength": len(file.binary)},
        {"byteLength": 99, "extensions": {name: {"fallback": True}}},
    ]
    file.node(file.primitive(POSITION=position, NORMAL=normal, indices=indices))
    surface = only(file, tmp_path)
    corners = {tuple(map(tuple, face)) for face in surface.positions}
    assert {frozenset(face) for face in corners} == {frozenset(map(tuple, face)) for face in FACES}
    np.testing.assert_allclose(surface.normals, np.broadcast_to([0, 0.6, 0.8], (2, 3, 3)), atol=0.02)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnrenderableMesh, match=f"packed with {name}; pip install meshopt"):
        read(file, tmp_path)


def test_a_required_extension_that_is_not_known_is_refused(tmp_path):
    file = GltfFile(extensionsUsed=["ACME_glow", "ACME_shape"], extensionsRequired=["ACME_shape"])
    file.node(file.primitive())
    with pytest.raises(UnrenderableMesh, match="it requires ACME_shape, which is not read"):
        read(file, tmp_path)
    del file.json["extensionsRequired"]
    assert read(file, tmp_path).notes == []


def change(path: list, value):
    def apply(header: dict) -> None:
        *above, last = path
        for step in above:
            header = header[step]
        header[last] = value

    return apply


@pytest.mark.parametrize(
    ("apply", "reason"),
    [
        (change(["asset", "version"], "1.0"), "glTF 1.0 is not read"),
        (change(["asset", "minVersion"], "2.1"), "needs a reader of glTF 2.1"),
        (change(["nodes", 0, "mesh"], 7), r"it names meshes\[7\] of 1"),
        (change(["nodes", 0, "mesh"], -1), r"it names meshes\[-1\] of 1"),
        (change(["nodes", 0, "children"], [0]), r"nodes\[0\] stands below itself"),
        (change(["accessors", 0, "count"], 5), r"accessors\[0\] reaches to byte 60 of a bufferView of 48"),
        (change(["accessors", 0, "count"], 10**12), r"accessors\[0\] reaches to byte"),
        (change(["accessors", 0], {"componentType": 5126, "count": 10**9, "type": "VEC3"}), "has 10000000"),
        (change(["accessors", 0, "byteOffset"], -4), r"accessors\[0\] reaches"),
        (change(["accessors", 0, "componentType"], 99), "componentType 99, which is not read"),
        (change(["bufferViews", 0, "byteLength"], 10**9), r"bufferViews\[0\] reaches to byte"),
        (change(["buffers", 0], {"byteLength": 9, "uri": "gone.bin"}), "its buffer 'gone.bin' not found"),
        (change(["buffers", 0], {"byteLength": 9, "uri": "https://a.b/c.bin"}), "is an address, and nothing"),
        (change(["meshes", 0, "primitives", 0, "mode"], 9), "mode 9 is not read"),
        (change(["nodes"], {"a": 1}), "its nodes are no list"),
        (change(["nodes", 0, "extensions"], "none"), "a value is of another kind than the format has there"),
        (change(["meshes", 0, "primitives", 0, "mode"], 1), r"no faces; drawn without: lines \(1\)"),
        (change(["meshes", 0, "primitives", 0, "indices"], "zero"), r"it names accessors\[zero\]"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_that_says_where(tmp_path, apply, reason):
    file = GltfFile()
    file.node(file.primitive())
    path = file.save(tmp_path, "a.gltf")
    header = json.loads(path.read_text())
    apply(header)
    path.write_text(json.dumps(header))
    with pytest.raises(UnrenderableMesh, match=reason) as error:
        read_gltf(path, ANY)
    assert "\n" not in str(error.value)


def test_an_index_beyond_the_vertices_is_refused(tmp_path):
    file = GltfFile()
    file.node(file.primitive(indices=file.accessor([0, 1, 4], "uint8")))
    with pytest.raises(UnrenderableMesh, match="a triangle names vertex 4 of 4"):
        read(file, tmp_path)


@pytest.mark.parametrize("length", [3, 11, 19, 40, -1])
def test_a_glb_that_is_cut_off_has_a_reason(tmp_path, length):
    file = GltfFile()
    file.node(file.primitive())
    path = file.save(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UnrenderableMesh, match=r"cut off|unreadable GLB"):
        read_gltf(path, ANY)


def test_instances_are_counted_before_they_are_copied(tmp_path):
    file = GltfFile()
    sparse = file.add("accessors", componentType=5126, count=10**7, type="VEC3")  # no bytes behind it
    extension = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": sparse}}}
    file.node(file.primitive(), extensions=extension)
    with pytest.raises(UnrenderableMesh, match="20000000 triangles, more than --max-triangles 1000"):
        read_gltf(file.save(tmp_path), 1000)


def test_a_vertex_that_is_no_number_costs_its_triangles(tmp_path):
    file = GltfFile()
    positions = POSITIONS.copy()
    positions[1] = np.nan
    file.node(file.primitive(POSITION=file.accessor(positions), indices=file.accessor(INDICES, "uint16")))
    mesh = load_mesh(file.save(tmp_path), "sphere", np.eye(4), ANY)
    assert mesh.num_triangles == 1
    assert mesh.notes == ["NaN or infinite vertices; 1 of 2 triangles are left out"]
