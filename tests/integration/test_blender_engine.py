"""Blender beside OpenGL: the same object, cameras, colours and geometry; and a Blender that dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")
pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")

import trimesh

from data_tools.engines import EngineUnavailable, make_engine
from data_tools.engines.blender import BlenderEngine
from data_tools.engines.blender_process import PATH_VARIABLE, BlenderFault, find_blender
from data_tools.shared.plan import make_plan
from tests.clock import wait_until
from tests.gltf_files import GltfFile
from tests.hdri_files import write_hdr

RESOLUTION = 96
COLORS = ((60, 120, 200), (200, 60, 30), (230, 230, 220))


def made(name: str, **options):
    try:
        return make_engine(name, **options)
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def engines():
    both = {"blender": made("blender", samples=24), "opengl": made("opengl")}
    yield both
    for engine in both.values():
        engine.close()


def draw(engines, path: Path, num_views: int = 4, **options) -> tuple[list, list]:
    """The same views by Blender and by OpenGL."""
    plan = make_plan(resolution=RESOLUTION, num_views=num_views, **options).for_object({"uid": "a"})
    return tuple(list(engines[name].render(path, plan)[0]) for name in ("blender", "opengl"))


def asymmetric(folder: Path) -> Path:
    """No two sides alike, and every part another colour."""
    parts = [
        (trimesh.creation.box((1, 0.6, 0.4)), (0, 0, 0), COLORS[0]),
        (trimesh.creation.cone(0.3, 0.8), (0.3, 0.2, 0.1), COLORS[1]),
        (trimesh.creation.icosphere(3, 0.3), (-0.4, 0.35, 0.15), COLORS[2]),
    ]
    for mesh, offset, color in parts:
        mesh.apply_translation(offset)
        mesh.visual.vertex_colors = (*color, 255)
    trimesh.util.concatenate([mesh for mesh, _, _ in parts]).export(folder / "a.ply")
    return folder / "a.ply"


def inside_of_both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a[..., 3] == 255) & (b[..., 3] == 255)


@pytest.mark.parametrize("lighting", ["studio", "random"])
def test_both_engines_draw_the_same(engines, tmp_path, lighting):
    path = asymmetric(tmp_path)
    for ours, other in zip(*draw(engines, path, 10, lighting=lighting, geometry=True), strict=True):
        a, b = ours.image, other.image
        # Of alpha itself: an edge that halves a row of pixels is no matter of luck then.
        smaller, larger = np.minimum(a, b)[..., 3].sum(), np.maximum(a, b)[..., 3].sum()
        assert smaller / larger > 0.99
        assert np.abs(a[..., 3].astype(int) - b[..., 3]).mean() < 0.5
        difference = np.abs(a[..., :3].astype(int) - b[..., :3])[inside_of_both(a, b)]
        # Shadows, which only Blender has, darken some places by much more.
        assert np.median(difference) < 7 and difference.mean() < 12
        hit = (ours.depth > 0) & (other.depth > 0)
        assert (hit == (ours.depth > 0)).mean() > 0.995 and (hit == (other.depth > 0)).mean() > 0.995
        # In a few pixels the middle lies so near an edge that each engine hits another face.
        assert np.percentile(np.abs(ours.depth - other.depth)[hit], 98) < 1e-3
        assert np.percentile(np.abs(ours.normal - other.normal)[hit], 98) < 1e-2
        np.testing.assert_allclose(np.linalg.norm(ours.normal[hit], axis=-1), 1, atol=1e-3)


def test_albedo_is_the_base_colour_in_both(engines, tmp_path):
    for ours, other in zip(*draw(engines, asymmetric(tmp_path), 5, albedo=True), strict=True):
        a, b = ours.albedo, other.albedo
        both = inside_of_both(a, b)
        assert ours.depth is None and both.sum() > 1000
        assert (np.abs(a[..., :3].astype(int) - b[..., :3])[both].max(axis=-1) > 6).mean() < 0.03  # at edges
        for view in (ours, other):
            assert np.abs(view.albedo[..., 3].astype(int) - view.image[..., 3]).mean() < 0.2
            colors = view.albedo[both][:, :3].astype(int)
            nearest = [np.abs(colors - rgb).max(axis=-1) for rgb in COLORS]
            assert (np.min(nearest, axis=0) <= 2).mean() > 0.95


def test_albedo_has_texture_and_neither_light_nor_emission(engines, tmp_path):
    for views in draw(engines, textured(tmp_path, 128), albedo=True):
        albedo = views[0].albedo
        assert np.abs(albedo[30, 25].astype(int) - (200, 40, 30, 255)).max() <= 2
        assert np.abs(albedo[60, 25].astype(int) - (40, 60, 220, 128)).max() <= 2
    box = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0, 0, 0, 255], emissiveFactor=[0.5, 0, 0])
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    box.export(tmp_path / "glow.glb")
    for views in draw(engines, tmp_path / "glow.glb", albedo=True):
        np.testing.assert_array_equal(views[0].albedo[48, 48], [0, 0, 0, 255])


def linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def test_an_environment_image_lights_each_side_as_its_integral_says(engines, tmp_path):
    """A white box: on each face the radiance times the cosine, over the half of the sphere before it."""
    radiance = np.full((32, 64, 3), (0.2, 0.1, 0.05))
    radiance[:12] = (0.2, 0.4, 0.8)  # the sky
    radiance[12:20, 26:38] = (3.0, 2.0, 1.0)  # a lamp around the middle: +x
    radiance[12:20, 8:16] = (0.0, 2.0, 0.0)  # and a green one a quarter and more to the left
    trimesh.creation.box().export(tmp_path / "a.stl")
    engine = made("blender", samples=64, hdri=str(write_hdr(tmp_path / "a.hdr", radiance)), hdri_strength=0.5)
    try:
        plan = make_plan(resolution=32, num_views=6)
        images = list(engine.render(tmp_path / "a.stl", plan)[0])
    finally:
        engine.close()
    latitude = (0.5 - (np.arange(32) + 0.5) / 32)[:, None] * np.pi
    # To the right of the image's middle lies -z, as to the right of +x for one who stands inside.
    longitude = ((np.arange(64) + 0.5) / 64 - 0.5)[None] * 2 * np.pi
    directions = np.stack(np.broadcast_arrays(
        np.cos(latitude) * np.cos(longitude), np.sin(latitude), np.cos(latitude) * np.sin(longitude)
    ), axis=-1)  # fmt: skip
    weights = np.cos(latitude) * (np.pi / 32) ** 2
    # The middle of the canonical views: front, right, back, left.
    for image, normal in zip(images, [(0, 0, 1), (1, 0, 0), (0, 0, -1), (-1, 0, 0)], strict=False):
        cosine = np.maximum(directions @ np.array(normal), 0) * weights
        expected = 0.6 * 0.5 * np.einsum("hw,hwc->c", cosine, radiance) / np.pi
        found = linear(image[10:22, 10:22, :3] / 255).mean(axis=(0, 1))
        np.testing.assert_allclose(found, expected, rtol=0.08, atol=0.01)


def test_an_environment_image_that_blender_cannot_read_is_one_line(tmp_path):
    made("blender").close()
    path = write_hdr(tmp_path / "a.hdr", np.ones((32, 64, 3)))
    settings = BlenderEngine.settings(hdri=str(path))
    assert settings["lighting"] == "hdri" and len(settings["hdri_sha256"]) == 64
    path.write_bytes(path.read_bytes()[:1000])
    for broken in (path, tmp_path / "b.exr"):
        if broken != path:
            broken.write_bytes(b"\x76\x2f\x31\x01" + bytes(100))
        with pytest.raises(ValueError, match=rf"--hdri {broken} cannot be read") as raised:
            BlenderEngine.settings(hdri=str(broken))
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="--hdri-strength 2 has no effect without --hdri"):
        BlenderEngine.settings(hdri_strength=2)
    with pytest.raises(ValueError, match="--hdri-strength -1 must be a positive number"):
        BlenderEngine.settings(hdri=str(path), hdri_strength=-1)


def test_depths_are_those_of_the_object(engines, tmp_path):
    trimesh.creation.box().export(tmp_path / "a.stl")
    half = 0.6 / np.sqrt(3)
    for views in draw(engines, tmp_path / "a.stl", geometry=True):
        middle = RESOLUTION // 2
        assert views[1].depth[middle, middle] == pytest.approx(1.5 - half, abs=1e-4)
        assert views[1].depth[0, 0] == 0
        np.testing.assert_allclose(views[1].normal[middle, middle], [1, 0, 0], atol=1e-3)


def textured(folder: Path, alpha: int) -> Path:
    """An image of four colours, one of them with this alpha, twice across and once upwards; its faces are
    wound the other way round than its normals say."""
    pixels = np.zeros((64, 64, 4), dtype=np.uint8)
    pixels[:32, :32], pixels[:32, 32:] = (200, 40, 30, 255), (30, 180, 60, 255)
    pixels[32:, :32], pixels[32:, 32:] = (40, 60, 220, alpha), (230, 210, 90, 255)
    Image.fromarray(pixels).save(folder / "image.png")
    (folder / "a.mtl").write_text("newmtl p\nmap_Kd image.png\n")
    (folder / "a.obj").write_text(
        "mtllib a.mtl\nv -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nvn 0 0 1\nvt 0 0\nvt 2 0\nvt 2 1\nvt 0 1\n"
        "usemtl p\nf 4/4/1 3/3/1 2/2/1 1/1/1\n"
    )
    return folder / "a.obj"


@pytest.mark.parametrize(("alpha", "expected"), [(255, 255), (0, 0), (128, 128)])
def test_textures_and_their_alpha(engines, tmp_path, alpha, expected):
    for view in (0, 2):  # from both sides
        ours, other = (views[view] for views in draw(engines, textured(tmp_path, alpha)))
        both = inside_of_both(ours, other)
        assert both.sum() > 1000
        difference = np.abs(ours[..., :3].astype(int) - other[..., :3])[both]
        assert np.median(difference) < 6 and np.percentile(difference, 95) < 14
        row, column = 60, 25 if view == 0 else 70  # in the lower left quarter of the image
        assert abs(int(ours[row, column, 3]) - expected) <= 30
        assert np.abs(ours[..., 3].astype(int) - other[..., 3]).mean() < 3


def test_emission_glows_in_srgb(engines, tmp_path):
    box = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0, 0, 0, 255], emissiveFactor=[0.5, 0, 0])
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    box.export(tmp_path / "a.glb")
    for views in draw(engines, tmp_path / "a.glb"):
        middle = RESOLUTION // 2
        np.testing.assert_allclose(views[0][middle, middle], [188, 0, 0, 255], atol=1)


def test_gltf_looks_alike_in_both(engines, tmp_path):
    """Side by side: a texture mirrored along u and clamped along v, nearest texels, a glow with coordinates
    of its own, and an inverted hull around an unlit box."""
    image = Image.new("RGB", (4, 4), (200, 40, 30))
    image.paste((30, 180, 60), (1, 0, 4, 2))
    image.paste((40, 60, 220), (0, 3, 4, 4))
    file = GltfFile()
    wraps = {"wrapS": 33648, "wrapT": 33071, "magFilter": 9728}
    mixed = {"index": file.texture(image, sampler=file.add("samplers", **wraps))}
    # Between texels Cycles mixes in sRGB, the device in linear light: nothing to compare.
    plain = {"index": file.texture(image, sampler=file.add("samplers", magFilter=9728)), "texCoord": 1}
    black = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}}
    parts = [
        {"pbrMetallicRoughness": {"baseColorTexture": mixed}, "extensions": {"KHR_materials_unlit": {}}},
        {**black, "emissiveTexture": plain, "emissiveFactor": [1, 1, 1]},
    ]
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=float)
    uv = (square[:, :2] * (1, -1) + 1) / 2
    for x, entry in zip((-1.1, 1.1), parts, strict=True):
        coordinates = {"TEXCOORD_0": file.accessor(uv * 3 - 1), "TEXCOORD_1": file.accessor(uv[:, ::-1])}
        position, indices = file.accessor(square), file.accessor([0, 1, 2, 0, 2, 3], "uint8")
        material = file.add("materials", **entry)
        primitive = file.primitive(material, indices, POSITION=position, **coordinates)
        file.node(primitive, translation=[x, 0, 1])
    box = trimesh.creation.box()
    for scale, faces, rgb in (
        (1.0, box.faces, (0.1, 0.5, 0.9)),
        (1.1, box.faces[:, ::-1], (0.02, 0.02, 0.02)),
    ):
        entry = {
            "pbrMetallicRoughness": {"baseColorFactor": [*rgb, 1]},
            "extensions": {"KHR_materials_unlit": {}},
        }
        indices, position = file.accessor(faces.ravel(), "uint8"), file.accessor(box.vertices * scale)
        primitive = file.primitive(file.add("materials", **entry), indices, POSITION=position)
        file.node(primitive, translation=[0, 1.8, 0])
    blender, opengl = (views[0] for views in draw(engines, file.save(tmp_path)))
    both = inside_of_both(blender, opengl)
    difference = np.abs(blender[..., :3].astype(int) - opengl[..., :3])[both].max(axis=-1)
    assert both.sum() > 2000 and (difference > 12).mean() < 0.08  # along edges of texels
    assert np.abs(blender[..., 3].astype(int) - opengl[..., 3]).mean() < 1


def cabinet(folder: Path, triangles: str) -> Path:
    """A box whose faces are there twice: the same ones, the other way round, or cut into other triangles; and
    a door that lies on its front."""
    corners = trimesh.creation.box((1, 1, 0.6)).vertices
    lines = [f"v {x} {y} {z}" for x, y, z in [*corners, (-0.4, -0.4, 0.3), (0.4, -0.4, 0.3), (0.4, 0.4, 0.3)]]
    quads = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
    cut = {"same": (0, 1, 2, 3), "turned": (3, 2, 1, 0), "other": (1, 2, 3, 0)}[triangles]
    lines += ["usemtl side", *(f"f {q[0]} {q[1]} {q[2]}\nf {q[0]} {q[2]} {q[3]}" for q in quads)]
    again = [[quad[i] for i in cut] for quad in quads]
    lines += ["usemtl again", *(f"f {q[0]} {q[1]} {q[2]}\nf {q[0]} {q[2]} {q[3]}" for q in again)]
    lines += ["usemtl side", "f 9 10 11"]
    (folder / "a.mtl").write_text("newmtl side\nKd 0.7 0.6 0.5\nnewmtl again\nKd 0.7 0.6 0.5\n")
    (folder / "a.obj").write_text("mtllib a.mtl\n" + "\n".join(lines))
    return folder / "a.obj"


@pytest.mark.parametrize("triangles", ["same", "turned", "other"])
def test_faces_that_are_there_twice_are_as_bright_as_in_opengl(engines, tmp_path, triangles):
    for ours, other in zip(*draw(engines, cabinet(tmp_path, triangles), 6, geometry=True), strict=True):
        a, b = ours.image, other.image
        both = inside_of_both(a, b)
        difference = np.abs(a[..., :3].astype(int) - b[..., :3]).max(axis=-1)[both]
        assert both.sum() > 1000 and np.median(difference) < 12 and (difference > 40).mean() < 0.02
        hit = (ours.depth > 0) & (other.depth > 0)
        assert np.percentile(np.abs(ours.depth - other.depth)[hit], 98) < 1e-3
        assert np.percentile(np.abs(ours.normal - other.normal)[hit], 98) < 1e-2


def test_a_dead_blender_costs_one_object(engines, tmp_path):
    engine, path = engines["blender"], asymmetric(tmp_path)
    plan = make_plan(resolution=16, num_views=4)
    views = engine.render(path, plan)[0]
    first = next(views)
    os.kill(engine._processes["color"].pid, 9)
    with pytest.raises(BlenderFault, match=r"Blender died \(exit code -9"):
        list(views)
    np.testing.assert_array_equal(next(engine.render(path, plan)[0]), first)


def test_blender_ends_with_the_program_that_started_it(engines):
    program = (
        "import os, signal; from data_tools.engines import make_engine; e = make_engine('blender')\n"
        "p = e._processes['color']; print(p.pid, p.folder, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid, folder = done.stdout.split()
    assert pid.isdigit()
    wait_until(lambda: not Path(folder).exists())


def program(folder: Path, text: str) -> str:
    path = folder / "blender"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_what_cannot_start_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(EngineUnavailable, match="'/no/blender' is no program"):
        find_blender("/no/blender")
    with pytest.raises(EngineUnavailable, match="neither a Blender nor a python with bpy"):
        find_blender(program(tmp_path, "echo Povray 3"))
    dying = tmp_path / "dying"
    dying.mkdir()
    says = 'if [ "$1" = --version ]; then echo "Blender 9.8.7"; exit; fi\necho "no libX" >&2; exit 5'
    with pytest.raises(EngineUnavailable, match=r"does not start: Blender died \(exit code 5; no libX\)"):
        make_engine("blender", blender=program(dying, says))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv(PATH_VARIABLE, program(dying, says))
    assert find_blender(None)[1] == "9.8.7"
    monkeypatch.delenv(PATH_VARIABLE)
    monkeypatch.setenv("PATH", str(dying))
    assert find_blender(None)[1] == "9.8.7"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineUnavailable, match="finds no Blender: give --blender PATH"):
        find_blender(None)
