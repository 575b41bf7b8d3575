"""glTF's materials: factors, textures and where they lie, alpha, emission, and what is not drawn."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.meshes.gltf import read_gltf
from data_tools.meshes.gltf.specular_glossiness import base_color, base_image
from data_tools.meshes.images import MAX_TEXTURE_SIZE
from data_tools.meshes.surfaces import Mesh, Sampler, UnrenderableMesh
from data_tools.shared.colors import srgb_to_linear
from tests.gltf_files import INDICES, UV, GltfFile, color, encoded

ANY = 10**9
KTX2 = "data:;base64," + base64.b64encode(b"\xabKTX 20\xbb\r\n\x1a\n").decode()


def read(file: GltfFile, folder: Path, name: str = "a.glb") -> Mesh:
    return read_gltf(file.save(folder, name), ANY)


def material_of(file: GltfFile, folder: Path, **entry):
    """Of the quadrilateral with two sets of coordinates and this material, and no note."""
    number = file.add("materials", **entry)
    attributes = {"TEXCOORD_0": file.accessor(UV), "TEXCOORD_1": file.accessor(UV / 2)}
    file.node(file.primitive(number, **attributes))
    mesh = read(file, folder)
    assert mesh.notes == []
    return mesh.surfaces[0].material


def test_the_default_is_white_opaque_and_single_sided(tmp_path):
    file = GltfFile()
    file.node(file.primitive())
    material = read(file, tmp_path).surfaces[0].material
    assert material.base_color == (1, 1, 1, 1) and material.alpha_mode == "opaque"
    assert not material.double_sided and not material.unlit and material.base_image is None


def test_factors_stay_as_precise_as_they_are(tmp_path):
    factor = [0.001234, 0.5004, 0.9999, 1.0]
    values = {"pbrMetallicRoughness": {"baseColorFactor": factor}, "emissiveFactor": [0.00031, 0, 0]}
    strength = {"KHR_materials_emissive_strength": {"emissiveStrength": 10}}
    material = material_of(GltfFile(), tmp_path, **values, extensions=strength, doubleSided=True)
    assert material.base_color == tuple(factor)
    assert material.emission == pytest.approx((0.0031, 0, 0)) and material.double_sided


def test_unlit_has_no_emission(tmp_path):
    entry = {"extensions": {"KHR_materials_unlit": {}}, "emissiveFactor": [1, 1, 1]}
    material = material_of(GltfFile(), tmp_path, **entry)
    assert material.unlit and material.emission == (0, 0, 0)


@pytest.mark.parametrize("name", ["KHR_texture_transform", None])
def test_base_and_emission_have_coordinates_of_their_own(tmp_path, name):
    file = GltfFile()
    texture = file.texture(color(1, 2, 3))
    transform = {"offset": [0.1, 0.2], "rotation": np.pi / 2, "scale": [2, 3], "texCoord": 1}
    glow = (
        {"index": texture, "texCoord": 0, "extensions": {name: transform}}
        if name
        else {"index": texture, "texCoord": 1}
    )
    number = file.add(
        "materials", pbrMetallicRoughness={"baseColorTexture": {"index": texture}}, emissiveTexture=glow,
        emissiveFactor=[1, 1, 1],
    )  # fmt: skip
    file.node(file.primitive(number, TEXCOORD_0=file.accessor(UV), TEXCOORD_1=file.accessor(UV / 2)))
    (surface,) = read(file, tmp_path).surfaces
    u, v = (UV / 2).T
    # A quarter turn, counter-clockwise as seen on the image, whose v points down: (u, v) -> (v, -u).
    expected = np.stack([0.1 + 3 * v, 0.2 - 2 * u], axis=1) if name else UV / 2
    expected = expected * (1, -1) + (0, 1)
    np.testing.assert_allclose(surface.emission_uv, expected[INDICES].reshape(2, 3, 2), atol=1e-6)
    np.testing.assert_allclose(surface.uv, (UV * (1, -1) + (0, 1))[INDICES].reshape(2, 3, 2), atol=1e-6)


def test_emission_alone_brings_its_coordinates(tmp_path):
    file = GltfFile()
    glow = {"index": file.texture(color(1, 2, 3)), "texCoord": 1}
    number = file.add("materials", emissiveTexture=glow, emissiveFactor=[1, 1, 1])
    file.node(file.primitive(number, TEXCOORD_1=file.accessor(UV)))
    (surface,) = read(file, tmp_path).surfaces
    assert surface.uv is not None and surface.emission_uv is None


def test_samplers_wrap_and_filter(tmp_path):
    file = GltfFile()
    sampler = file.add("samplers", wrapS=33648, wrapT=33071, magFilter=9728, minFilter=9987)
    texture = file.texture(color(1, 2, 3), sampler=sampler)
    plain = {"index": file.add("textures", source=0, sampler=file.add("samplers"))}
    values = {"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}}
    material = material_of(file, tmp_path, **values, emissiveTexture=plain, emissiveFactor=[1, 1, 1])
    assert material.base_sampler == Sampler("mirror", "clamp", nearest=True)
    assert material.emission_sampler == Sampler()


def test_coordinates_that_a_mesh_lacks_are_noted(tmp_path):
    file = GltfFile()
    file.node(file.primitive(file.textured(color(1, 2, 3), {"texCoord": 3}), TEXCOORD_0=file.accessor(UV)))
    mesh = read(file, tmp_path)
    assert mesh.notes == ["a textured mesh lacks TEXCOORD_3; its material's colour is used"]
    assert mesh.surfaces[0].uv is None and mesh.surfaces[0].material.base_image is None


def half_clear() -> Image.Image:
    image = color(200, 100, 50, 255)
    image.paste((10, 220, 30, 0), (0, 0, 2, 4))
    return image


@pytest.mark.parametrize(
    ("alpha", "entry", "expected"),
    [
        (None, {}, ("opaque", 0.5)),
        (1.0, {"alphaMode": "OPAQUE"}, ("opaque", 0.5)),
        (1.0, {"alphaMode": "MASK", "alphaCutoff": 0.25}, ("mask", 0.25)),
        (0.3, {"alphaMode": "BLEND"}, ("blend", 0.5)),
        (0.3, {"alphaMode": "OPAQUE"}, ("opaque", 0.5)),
    ],
)
def test_alpha_modes(tmp_path, alpha, entry, expected):
    file = GltfFile()
    values = {"baseColorTexture": {"index": file.texture(half_clear())}}
    if alpha is not None:
        values["baseColorFactor"] = [1, 1, 1, alpha]
    material = material_of(file, tmp_path, pbrMetallicRoughness=values, **entry)
    assert (material.alpha_mode, material.alpha_cutoff) == expected
    assert material.base_color[3] == (1.0 if alpha is None else alpha)
    opaque = expected[0] == "opaque"
    assert material.base_image.mode == ("RGB" if opaque else "RGBA")
    # Under alpha 0 an opaque material has its colours.
    assert material.base_image.getpixel((0, 0))[:3] == (10, 220, 30)


def test_blend_with_translucent_vertex_colours_only(tmp_path):
    file = GltfFile()
    number = file.add("materials", alphaMode="BLEND")
    file.node(file.primitive(number), file.primitive(number, COLOR_0=file.accessor(np.full((4, 4), 0.5))))
    solid, clear = read(file, tmp_path).surfaces
    assert (solid.material.alpha_mode, clear.material.alpha_mode) == ("opaque", "blend")


@pytest.mark.parametrize(
    ("mode", "kind"), [("P", "PNG"), ("CMYK", "JPEG"), ("L", "PNG"), ("RGBA", "WEBP"), ("RGB", "TIFF")]
)
def test_specular_glossiness_of_any_kind_of_image(tmp_path, mode, kind):
    image = color(102, 102, 102).convert(mode)  # a colour of the usual palette
    file = GltfFile()
    values = {
        "diffuseTexture": {"index": file.add("textures", source=file.image(image, kind))},
        "diffuseFactor": [0.5, 1, 1, 1],
        "specularFactor": [0, 0, 0],
    }
    material = material_of(file, tmp_path, extensions={"KHR_materials_pbrSpecularGlossiness": values})
    assert material.base_color == (0.5, 1, 1, 1)
    np.testing.assert_allclose(material.base_image.getpixel((1, 1))[:3], 102, atol=3)


def test_metals_of_specular_glossiness_have_their_specular_colour(tmp_path):
    gold = (1.0, 0.7, 0.3)
    values = {"diffuseFactor": [0, 0, 0, 1], "specularFactor": list(gold)}
    file = GltfFile()
    metal = material_of(file, tmp_path, extensions={"KHR_materials_pbrSpecularGlossiness": values})
    np.testing.assert_allclose(metal.base_color[:3], gold, atol=0.03)
    file = GltfFile()
    values = {"diffuseFactor": [0.2, 0.4, 0.6, 1], "specularFactor": [0.03, 0.03, 0.03]}
    wood = material_of(file, tmp_path, extensions={"KHR_materials_pbrSpecularGlossiness": values})
    np.testing.assert_allclose(wood.base_color[:3], (0.2, 0.4, 0.6))
    # Texel by texel as for one colour.
    diffuse, specular = color(40, 30, 20, 77), color(250, 180, 90).resize((8, 8))
    image = base_image(diffuse, np.array([1, 0.5, 1]), specular, np.ones(3))
    linear = [srgb_to_linear(np.array(rgb) / 255) for rgb in ((40, 30, 20), (250, 180, 90))]
    expected = base_color(linear[0] * (1, 0.5, 1), linear[1])
    np.testing.assert_allclose(
        srgb_to_linear(np.array(image.getpixel((2, 2))[:3]) / 255), expected, atol=0.01
    )
    assert image.getpixel((2, 2))[3] == 77


def test_names_are_percent_encoded_and_may_lie_beside_the_folder(tmp_path):
    folder = tmp_path / "set" / "models"
    folder.mkdir(parents=True)
    (tmp_path / "set" / "shared textures").mkdir()
    image = color(9, 80, 200)
    names = {
        "../shared%20textures/%C3%A9%23.png": tmp_path / "set" / "shared textures" / "é#.png",
        "sub\\wood.png": folder / "sub" / "wood.png",
        "100%25.png": folder / "100%.png",
        "50%.png": folder / "50%.png",
        "../../top.png": tmp_path / "top.png",
        "WOOD2.PNG": folder / "wood2.png",
        "C:\\me\\desk.png": folder / "desk.png",
        "/home/me/desk2.png": folder / "desk2.png",
    }
    for uri, path in names.items():
        path.parent.mkdir(exist_ok=True)
        image.save(path)
        file = GltfFile(images=[{"uri": uri}], textures=[{"source": 0}])
        base = {"baseColorTexture": {"index": 0}}
        file.node(
            file.primitive(file.add("materials", pbrMetallicRoughness=base), TEXCOORD_0=file.accessor(UV))
        )
        mesh = read(file, folder, "a.gltf")
        assert mesh.notes == [], uri
        assert mesh.surfaces[0].material.base_image.getpixel((0, 0)) == (9, 80, 200), uri


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"uri": "gone.png"}, "texture 'gone.png' not found"),
        ({"uri": "http://a.b/c.png"}, "texture 'http://a.b/c.png' is an address, and nothing is fetched"),
        ({"uri": "file:///etc/c.png"}, "is an address"),
        ({"uri": "../../../c.png"}, "lies more than 2 folders up, where nothing is read"),
        ({"uri": "data:image/png;base64,AAAA"}, "cannot be read"),
        ({"uri": "data:image/png;base64"}, "is a data URI without data"),
        ({"uri": "x" * 5000}, "not found"),
        ({"uri": "a\0b.png"}, "not found"),
        ({"uri": ".."}, "not found"),
        ({}, "texture 'number 0' has neither a bufferView nor a uri"),
        ({"bufferView": 99}, r"it names bufferViews"),
        ({"name": "skin", "mimeType": "image/ktx2", "uri": KTX2}, "texture 'skin' image/ktx2 is KTX2"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_had_is_noted(tmp_path, image, reason):
    (tmp_path / "one" / "two" / "three").mkdir(parents=True)
    color(1, 1, 1).save(tmp_path / "c.png")
    file = GltfFile(images=[image], textures=[{"source": 0}])
    values = {"baseColorTexture": {"index": 0}, "baseColorFactor": [0.5, 0.4, 0.3, 1]}
    number = file.add("materials", pbrMetallicRoughness=values)
    file.node(file.primitive(number, TEXCOORD_0=file.accessor(UV)))
    mesh = read(file, tmp_path / "one" / "two" / "three", "a.gltf")
    (note,) = mesh.notes
    assert reason in note and note.endswith("its material's colour is used") and "\n" not in note
    assert mesh.surfaces[0].material.base_color == (0.5, 0.4, 0.3, 1)


def test_data_uris_as_writers_break_them(tmp_path):
    content = base64.b64encode(encoded(color(5, 6, 7))).decode()
    for uri in (
        f"data:image/png;base64,{content}",
        f"data:image/png;base64,{content.rstrip('=')}",
        f"DATA:image/png;BASE64,{content[:20]}\n {content[20:]}",
        f"data:image/png;base64,{content.replace('+', '-').replace('/', '_')}",
        "data:image/png," + "".join(f"%{byte:02X}" for byte in encoded(color(5, 6, 7))),
    ):
        file = GltfFile(images=[{"uri": uri}], textures=[{"source": 0}])
        number = file.add("materials", pbrMetallicRoughness={"baseColorTexture": {"index": 0}})
        file.node(file.primitive(number, TEXCOORD_0=file.accessor(UV)))
        mesh = read(file, tmp_path)
        assert mesh.notes == [] and mesh.surfaces[0].material.base_image.getpixel((0, 0)) == (5, 6, 7)


def test_images_in_extensions_and_what_stands_in_for_them(tmp_path):
    file = GltfFile()
    good, webp = file.image(color(5, 6, 7)), file.image(color(200, 0, 0), "WEBP")
    broken = file.add("images", bufferView=file.view(b"\xabKTX 20\xbb\r\n\x1a\n"), mimeType="image/ktx2")
    cases = [
        ({"source": good, "extensions": {"EXT_texture_webp": {"source": webp}}}, (200, 0, 0)),
        ({"extensions": {"EXT_texture_webp": {"source": webp}}}, (200, 0, 0)),
        ({"source": good, "extensions": {"EXT_texture_avif": {"source": broken}}}, (5, 6, 7)),
        ({"source": good, "extensions": {"KHR_texture_basisu": {"source": broken}}}, (5, 6, 7)),
        ({"extensions": {"KHR_texture_basisu": {"source": broken}}}, None),
        ({"extensions": {"ACME_texture": {"source": good}}}, None),
    ]
    for texture, expected in cases:
        values = {"baseColorTexture": {"index": file.add("textures", **texture)}}
        file.json["nodes"] = []
        number = file.add("materials", pbrMetallicRoughness=values)
        file.node(file.primitive(number, TEXCOORD_0=file.accessor(UV)))
        mesh = read(file, tmp_path)
        image = mesh.surfaces[0].material.base_image
        assert (
            image and np.abs(np.subtract(image.getpixel((0, 0)), expected)).max() <= 3
        ) or expected is None
        assert len(mesh.notes) == (expected is None)


def test_images_are_bounded_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.meshes.gltf.textures._MAX_PIXELS", 10_000)
    file = GltfFile()
    file.node(file.primitive(file.textured(Image.new("RGB", (101, 100))), TEXCOORD_0=file.accessor(UV)))
    assert read(file, tmp_path).notes == [
        "texture 'number 0' cannot be read (it is 101 × 100, larger than 0.01 megapixels); "
        "its material's colour is used"
    ]


def test_large_images_are_reduced_and_many_of_them_more(tmp_path):
    file = GltfFile()
    large = Image.new("RGB", (MAX_TEXTURE_SIZE + 10, 8), (1, 2, 3))
    file.node(file.primitive(file.textured(large), TEXCOORD_0=file.accessor(UV)))
    mesh = read(file, tmp_path)
    assert mesh.surfaces[0].material.base_image.width == MAX_TEXTURE_SIZE and mesh.notes == []
    file.json["images"] += [{"uri": "unused.png"}] * 100
    mesh = read(file, tmp_path)
    assert mesh.surfaces[0].material.base_image.width == MAX_TEXTURE_SIZE // 2
    assert mesh.notes == [f"has 101 images; those over {MAX_TEXTURE_SIZE // 2} pixels are reduced to it"]


def test_what_is_not_drawn_is_one_note(tmp_path):
    file = GltfFile(animations=[{"channels": [], "samplers": []}])
    extensions = {
        "KHR_materials_transmission": {"transmissionFactor": 0.9},
        "KHR_materials_volume": {"thicknessFactor": 0.1},
        "KHR_materials_sheen": {"sheenColorFactor": [0, 0.5, 0]},
        "KHR_materials_clearcoat": {"clearcoatFactor": 0},
        "KHR_materials_iridescence": {},
        "KHR_materials_ior": {"ior": 1.3},
    }
    normal = {"index": file.texture(color(128, 128, 255))}
    for _ in range(2):
        file.node(file.primitive(file.add("materials", extensions=extensions, normalTexture=normal)))
    assert read(file, tmp_path).notes == [
        "drawn without: animation (1), normal map (2), sheen (2), transmission (2), volume (2)"
    ]


def test_large_textures_of_specular_glossiness_are_reduced_before_they_are_computed_with(tmp_path):
    file = GltfFile()
    index = {"index": file.texture(Image.new("P", (4096, 64)))}
    values = {"diffuseTexture": index, "specularGlossinessTexture": index}
    material = material_of(file, tmp_path, extensions={"KHR_materials_pbrSpecularGlossiness": values})
    assert material.base_image.size == (MAX_TEXTURE_SIZE, 32)


@pytest.mark.parametrize(("before", "after"), [(b"\xef\xbb\xbf", b""), (b"", b"\0\0"), (b" \n", b"\n")])
def test_json_with_a_byte_order_mark_or_padding_is_read(tmp_path, before, after):
    file = GltfFile()
    file.node(file.primitive())
    path = file.save(tmp_path, "a.gltf")
    path.write_bytes(before + path.read_bytes() + after)
    assert read_gltf(path, ANY).surfaces[0].num_triangles == 2


def test_a_factor_that_is_no_number_is_refused(tmp_path):
    file = GltfFile()
    factor = {"baseColorFactor": [float("nan"), 1, 1, 1]}
    file.node(file.primitive(file.add("materials", pbrMetallicRoughness=factor)))
    with pytest.raises(UnrenderableMesh, match="a material has NaN or infinity for a factor"):
        read(file, tmp_path)


def test_vertex_colours_that_blacken_a_texture_are_noted(tmp_path):
    for value, count in ((0.0, 1), (0.5, 0)):
        file = GltfFile()
        colors = file.accessor(np.full((len(UV), 4), value))
        file.node(
            file.primitive(file.textured(color(9, 80, 200)), TEXCOORD_0=file.accessor(UV), COLOR_0=colors)
        )
        notes = read(file, tmp_path).notes
        assert len(notes) == count and all("COLOR_0 is black at most vertices" in note for note in notes)
