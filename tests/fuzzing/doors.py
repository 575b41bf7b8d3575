"""The twelve doors, and what each reads as a person's command would."""

# ruff: noqa: E501 - tables

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data_tools import attribution
from data_tools.meshes.load import load_mesh
from data_tools.meshes.surfaces import UnrenderableMesh
from data_tools.shared.decoded import UndecodableImage, decode_image
from data_tools.shared.shard_reader import ShardFault, read_samples
from data_tools.stats.command import Drawing, ShardPart, choose, count_shard
from data_tools.stats.page import page as stats_page
from data_tools.stats.tally import Tally
from data_tools.verify.command import check_shard, read_index, render_faults, split_faults
from lgm.callbacks.evaluation.objects import object_dir
from lgm.cameras import Cameras, canonicalise, plucker_rays
from lgm.data.schema.decode import decode_depths, decode_rgba
from lgm.data.schema.sample import ShardInfo, parse_cameras
from lgm.data.sources.filters import Filters
from lgm.data.sources.images.background import Keep
from lgm.data.sources.images.source import ImagesSource
from lgm.data.sources.shards import ShardSource
from lgm.gaussians import Gaussians
from lgm.gaussians.compressed_ply import save_compressed_ply
from lgm.gaussians.ply import load_ply, save_ply
from lgm.metrics.table import VIEW_ID, ViewTable, read_view_csv, write_csv
from tests.datasets import sample_files
from tests.fuzzing import mutations as m
from tests.fuzzing.running import Door

_NUM_VIEWS, _SIZE = 5, 8
_MAX_TRIANGLES = 100_000


def _tar(objects: list[dict[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=form) as tar:
        for files in objects:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return held.getvalue()


@cache
def _objects() -> list[dict[str, bytes]]:
    return [sample_files(uid, seed, _NUM_VIEWS, _SIZE) for seed, uid in enumerate(("first", "second"))]


def _index(shards: dict[str, bytes]) -> dict:
    entries = [
        {"name": name, "samples": 2, "bytes": len(x), "sha256": hashlib.sha256(x).hexdigest()}
        for name, x in shards.items()
    ]
    render = {
        **{
            "resolution": _SIZE,
            "views": _NUM_VIEWS,
            "trajectory": "spiral",
            "radius": 1.5,
            "fov_y_deg": 49.1,
        },
        **{"engine": "opengl", "engine_version": "1", "depth_unit": 1e-4},
    }
    return {"version": 1, "shards": entries, "render": render, "splits": {"train": ["a.tar"]}}


def _write_index(folder: Path) -> None:
    content = (folder / "a.tar").read_bytes()
    index = _index({"a.tar": content})
    index["shards"][0]["bytes"] = max(len(content), 2048)
    (folder / "index.json").write_text(json.dumps(index))


def _all_broken(faults: list[Exception], total: int) -> None:
    """As a run does: its first fault, where nothing is left."""
    if faults:
        raise faults[0]


def open_tar(folder: Path) -> None:
    source = ShardSource(folder)
    faults: list[Exception] = []
    for number in range(2):
        try:
            found = source.load(0, number)
            assert found.decode(range(found.cameras.num_views)).dtype == np.uint8
        except ValueError as error:
            _one_line(error)
            faults.append(error)
    try:
        for sample in read_samples(folder / "a.tar"):
            assert sample.uid
    except ShardFault as error:
        _one_line(error)
    _all_broken(faults, 2)


def _one_line(error: Exception) -> None:
    line = str(error)
    assert line.isprintable() and 0 < len(line) < 1500, f"not one printable line: {line[:200]!r}"


def open_index(folder: Path) -> None:
    index = read_index(folder)
    for fault in (*render_faults(index.render), *split_faults(index, {"first", "second"})):
        assert fault.isprintable() and len(fault) < 1500, repr(fault[:300])
    if index.num_samples < 10**7:
        choose(index, 2, 80)
    source = ShardSource(folder)
    source.check_files(1)
    for number in range(min(4, source.num_objects)):
        source.load(*source.locate(number)).decode([0])


def open_table(folder: Path) -> None:
    source = ShardSource(folder, filters=Filters({"licence": {"allow": ["*"]}, "category": {"deny": ["x"]}}))
    assert source.num_objects >= 1
    text = attribution.page(attribution.read_objects(folder), "Attribution", "")
    _no_markup(text)


def _no_markup(text: str) -> None:
    lowered = text.lower()
    assert "<script>alert" not in lowered and "<img src=x" not in lowered, "markup of an object in a page"
    assert "\u202e" not in text and "\0" not in text and "\x1b" not in text, "control characters in a page"


def open_cameras(folder: Path) -> None:
    record = parse_cameras((folder / "a.cameras.json").read_bytes(), "a")
    c2w = torch.from_numpy(record.c2w).float()
    cameras = Cameras.from_fov(c2w, record.fov_y_deg)
    for reference in c2w:
        moved = canonicalise(c2w, reference, 1.5)
        assert torch.isfinite(moved).all(), "a camera that is not finite in the network's frame"
        assert torch.isfinite(plucker_rays(Cameras(moved, cameras.K_norm), 4, 4)).all()


def open_view(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        faults: list[Exception] = []
        for read in (_as_view, _as_depth, _as_packed):
            try:
                read(content, path)
            except (ValueError, UndecodableImage) as error:
                _one_line(error)
                faults.append(error)
        if len(faults) == 3:
            raise faults[0]


def _as_view(content: bytes, path: Path) -> None:
    decode_rgba([content], [3], path.stem)


def _as_depth(content: bytes, path: Path) -> None:
    decode_depths([content], [3], path.stem, 1e-4)


def _as_packed(content: bytes, path: Path) -> None:
    decode_image(content)


def open_ply(folder: Path) -> None:
    (path,) = folder.iterdir()
    packed = load_ply(path).packed()
    assert torch.isfinite(packed).all(), "Gaussians that are not finite"


def open_weights(folder: Path) -> None:
    from lgm.models import LGM

    (path,) = folder.iterdir()
    net = LGM.from_pretrained(path)
    assert sum(p.numel() for p in net.parameters()) < 10_000_000


def open_images(folder: Path) -> None:
    found = ImagesSource(str(folder), Keep(), max_megapixels=25).load(0, 0)
    assert np.isfinite(found.cameras.c2w).all()
    assert found.decode([0]).shape[-1] == 4


def open_metadata(folder: Path) -> None:
    """One object whose uid and metadata are somebody's, through all that is made of them."""
    uid = (folder / "uid.txt").read_bytes().decode("utf-8", "surrogateescape")
    files = {name.removeprefix("first."): content for name, content in _objects()[0].items()}
    files["json"] = (folder / "meta.json").read_bytes()
    name = uid.replace(".", "_")
    try:
        content = _tar([{f"{name}.{key}": value for key, value in files.items()}])
    except (ValueError, UnicodeError):  # no tar holds it
        return
    (folder / "a.tar").write_bytes(content)
    shard = ShardInfo("a.tar", 1, len(content), hashlib.sha256(content).hexdigest())
    for fault in check_shard(folder, {"resolution": _SIZE}, 0.1, shard).faults:
        assert fault.isprintable() and len(fault) < 1500, f"not one printable line: {fault[:200]!r}"
    _csv_and_folders(folder, name)
    tally, strips = count_shard(folder, Drawing([0, 1], 16, 2), ShardPart("a.tar", None, frozenset([0])))
    whole = Tally(2)
    whole.merge(tally)
    _no_markup(stats_page("a", {"objects": "1"}, whole, strips))


def _csv_and_folders(folder: Path, uid: str) -> None:
    place = object_dir(folder, uid)
    place.mkdir(parents=True, exist_ok=True)
    assert place.parent == folder / "objects" and place.resolve().parent == (folder / "objects").resolve()
    if not uid.isprintable():
        return  # refused where it comes in
    line = {"uid": uid, "protocol": "p", "protocol_hash": "h", VIEW_ID: 1.0, "psnr": -2.0}
    write_csv(folder / "per_view.csv", [line])
    table = read_view_csv(folder / "per_view.csv")
    assert isinstance(table, ViewTable) and table.uids.tolist() == [uid], "a uid that a table changes"
    with (folder / "per_view.csv").open(newline="", encoding="utf-8") as file:
        cell = list(csv.reader(file))[1][0]
    assert not cell or cell[0] not in "=+-@\t\r", f"a formula in a table: {cell[:40]!r}"


def open_mesh(folder: Path) -> None:
    (path,) = (p for p in folder.iterdir() if p.suffix in (".obj", ".gltf", ".glb", ".ply", ".stl"))
    mesh = load_mesh(path, "sphere", np.eye(4), _MAX_TRIANGLES)
    for note in mesh.notes:
        assert note.isprintable() and len(note) < 1500, f"not one printable line: {note[:200]!r}"
    for surface in mesh.surfaces:
        assert np.isfinite(surface.positions).all() and np.isfinite(surface.normals).all(), "not finite"
        assert surface.uv is None or np.isfinite(surface.uv).all(), "texture coordinates that are not finite"
        assert surface.colors is None or np.isfinite(surface.colors).all(), "colours that are not finite"
        assert np.isfinite(surface.material.base_color).all(), "a colour that is not finite"


def _images() -> list[dict[str, bytes]]:
    random = np.random.default_rng(0)
    rgba = random.integers(0, 255, (_SIZE, _SIZE, 4), np.uint8)
    images = {
        "rgba.png": (Image.fromarray(rgba), {"format": "PNG"}),
        "rgb.png": (Image.fromarray(rgba[..., :3]), {"format": "PNG", "icc_profile": bytes(200)}),
        "palette.png": (Image.fromarray(rgba[..., :3]).quantize(), {"format": "PNG"}),
        "depth.png": (
            Image.fromarray(random.integers(0, 60000, (_SIZE, _SIZE)).astype(np.uint16)),
            {"format": "PNG"},
        ),
        "lossless.webp": (Image.fromarray(rgba), {"format": "WEBP", "lossless": True}),
        "lossy.webp": (Image.fromarray(rgba[..., :3]), {"format": "WEBP"}),
        "extended.webp": (Image.fromarray(rgba), {"format": "WEBP", "exif": b"Exif\0\0" + bytes(20)}),
        "photo.jpg": (Image.fromarray(rgba[..., :3]), {"format": "JPEG"}),
    }
    return [{name: _saved(image, options)} for name, (image, options) in images.items()]


def _saved(image: Image.Image, options: dict) -> bytes:
    held = io.BytesIO()
    image.save(held, **options)
    return held.getvalue()


def _read(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def _temporary(write) -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        return _read(Path(name))


def _gaussians(count: int) -> Gaussians:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(1, count, 14, generator=random)
    x[..., 4:7] *= 0.1
    return Gaussians.from_packed(x)


@cache
def _plain_plys() -> list[dict[str, bytes]]:
    def text(folder: Path) -> None:
        from plyfile import PlyData

        save_ply(_gaussians(8), folder / "b.ply")
        ply = PlyData.read(folder / "b.ply")
        ply.text = True
        ply.write(folder / "a.ply")
        (folder / "b.ply").unlink()

    return [
        _temporary(lambda folder: save_ply(_gaussians(16), folder / "a.ply")),
        _temporary(lambda folder: save_ply(_gaussians(16), folder / "a.ply", sh_degree=3, normals=True)),
        _temporary(text),
    ]


@cache
def _compressed_plys() -> list[dict[str, bytes]]:
    return [_temporary(lambda folder: save_compressed_ply(_gaussians(300), folder / "a.ply"))]


def _small_net():
    from lgm.models import LGM

    torch.manual_seed(0)
    net = {
        "down_channels": [32, 32],
        "down_attention": [False, True],
        "up_channels": [32],
        "up_attention": [True],
        "mid_attention": True,
    }
    config = {"model": {"net": {**net, "input_size": 16}}, "scene": {}, "resolution": {}}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in net.items()}
    return LGM(**values, input_size=16), config


@cache
def _safetensors() -> list[dict[str, bytes]]:
    from safetensors.torch import save

    net, config = _small_net()
    metadata = {
        "lgm_config": json.dumps(config),
        "lgm_weights": "raw",
        "lgm_training": json.dumps({"step": 5}),
    }
    return [{"a.safetensors": save(net.state_dict(), metadata)}]


@cache
def _checkpoints() -> list[dict[str, bytes]]:
    net, config = _small_net()
    content = {
        "state_dict": {f"net.{name}": value for name, value in net.state_dict().items()},
        "config": config,
        "schema_version": 1,
        "global_step": 5,
    }
    held = io.BytesIO()
    torch.save(content, held)
    return [{"a.ckpt": held.getvalue()}]


@cache
def _own_images() -> list[dict[str, bytes]]:
    from tests.own_images import Shoot

    shoot = Shoot.of(([0.0] * 4, [0.0, 90.0, 180.0, 270.0]), size=(16, 16))
    plain = _temporary(lambda folder: shoot.write(folder))
    angle = _temporary(lambda folder: shoot.write_transforms(folder, lens={"camera_angle_x": 0.857}))
    return [
        plain,
        angle,
        _temporary(shoot.write_transforms),
        _temporary(shoot.write_cameras_json),
        _temporary(shoot.write_colmap),
    ]


@cache
def _metadata() -> list[dict[str, bytes]]:
    known = {
        "uid": "a",
        "source": "x/a.glb",
        "licence": "CC0-1.0",
        "author": "A",
        "category": "chair",
        "name": "N",
    }
    return [
        {
            "uid.txt": uid.encode("utf-8", "surrogateescape"),
            "meta.json": json.dumps({**known, "uid": uid}).encode(),
        }
        for uid in (
            "a",
            "=1+1",
            "<script>alert(1)</script>",
            "a b c",
            "é" * 60,
            "..",
            "@x",
            "CON",
            "'x",
            "a-1",
        )
    ]


@cache
def _meshes() -> list[dict[str, bytes]]:
    import struct

    points = np.array(
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], float
    )
    quads = [(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
    triangles = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    texture = _saved(Image.fromarray(np.full((4, 4, 3), 99, np.uint8)), {"format": "PNG"})
    obj = (
        "mtllib a.mtl\n"
        + "".join(f"v {x} {y} {z}\n" for x, y, z in points)
        + "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    )
    obj += "vn 0 0 1\nusemtl m\n" + "".join(
        "f " + " ".join(f"{i + 1}/{k + 1}/1" for k, i in enumerate(q)) + "\n" for q in quads
    )
    mtl = "newmtl m\nKd 1 0 0\nd 0.9\nmap_Kd t.png\nKe 0 0 0\n"
    ply = (
        "ply\nformat ascii 1.0\nelement vertex 8\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nelement face 6\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    ply += "".join(f"{x} {y} {z} 200 0 0\n" for x, y, z in points) + "".join(
        f"4 {a} {b} {c} {d}\n" for a, b, c, d in quads
    )
    binary = ply.split("end_header\n")[0].replace("ascii", "binary_little_endian").encode() + b"end_header\n"
    binary += b"".join(struct.pack("<3f3B", *p, 200, 0, 0) for p in points)
    binary += b"".join(struct.pack("<B4i", 4, *q) for q in quads)
    stl = b"x".ljust(80) + struct.pack("<I", 12)
    stl += b"".join(struct.pack("<12fH", 0, 0, 1, *points[t].ravel(), 0) for t in triangles)
    ascii_stl = "solid a\n" + "".join(
        "facet normal 0 0 1\nouter loop\n" + "".join(f"vertex {x} {y} {z}\n" for x, y, z in points[t]) + "endloop\nendfacet\n"
        for t in triangles
    ) + "endsolid a\n"  # fmt: skip
    gltf, buffer = _gltf(points, triangles, texture)
    data = dict(gltf)
    data["buffers"] = [{"byteLength": len(buffer), "uri": "a.bin"}]
    header = json.dumps(gltf).encode()
    header += b" " * (-len(header) % 4)
    glb = struct.pack("<4sII", b"glTF", 2, 28 + len(header) + len(buffer))
    glb += (
        struct.pack("<I4s", len(header), b"JSON")
        + header
        + struct.pack("<I4s", len(buffer), b"BIN\0")
        + buffer
    )
    return [
        {"a.obj": obj.encode(), "a.mtl": mtl.encode(), "t.png": texture},
        {"a.ply": ply.encode()},
        {"a.ply": binary},
        {"a.stl": stl},
        {"a.stl": ascii_stl.encode()},
        {"a.gltf": json.dumps(data).encode(), "a.bin": buffer},
        {"a.glb": glb},
    ]


def _gltf(points: np.ndarray, triangles: np.ndarray, texture: bytes) -> tuple[dict, bytes]:
    pieces = [
        points.astype("<f4").tobytes(),
        np.zeros((8, 2), "<f4").tobytes(),
        triangles.astype("<u2").tobytes(),
    ]
    pieces = [*pieces, texture + b"\0" * (-len(texture) % 4)]
    views, offset = [], 0
    for piece in pieces:
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(piece)})
        offset += len(piece)
    content = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"children": [1], "scale": [1, 2, 1]}, {"mesh": 0, "rotation": [0, 0, 0, 1], "translation": [0, 1, 0]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0, "mode": 4}]}],
        "materials": [
            {"pbrMetallicRoughness": {"baseColorFactor": [1, 0.5, 0, 1], "baseColorTexture": {"index": 0}}, "alphaMode": "MASK"}
        ],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 8, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 1]},
            {"bufferView": 1, "componentType": 5126, "count": 8, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 36, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }  # fmt: skip
    return content, b"".join(pieces)


def _set_with(name: str, content: bytes) -> dict[str, bytes]:
    shard = _tar(_objects())
    return {"a.tar": shard, "index.json": json.dumps(_index({"a.tar": shard})).encode(), name: content}


@cache
def _index_sets() -> list[dict[str, bytes]]:
    return [_set_with("b.txt", b"")]


@cache
def _table_sets() -> list[dict[str, bytes]]:
    lines = [
        {
            "uid": uid,
            "shard": "a.tar",
            "licence": "CC-BY-4.0",
            "author": "A",
            "name": "N",
            "category": "chair",
        }
        for uid in ("first", "second")
    ]
    return [_set_with("objects.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())]


def json_line(random: m.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    place = int(random.integers(len(lines)))
    lines[place] = m.JSON[int(random.integers(len(m.JSON)))](random, lines[place] or b"{}")
    return b"\n".join(lines)


_BINARY = m.BYTES
_JSON = (*m.JSON, *m.JSON, *m.BYTES)
_TEXT = (*m.BYTES, m.text_lines, m.text_lines)
_PNG = (*m.BYTES, m.png_chunks, m.png_chunks, m.png_chunks)
_ANY_TEXT = (lambda random, content: m._pick(random, m.TEXTS).encode("utf-8", "surrogatepass"),)
_glb_header = m.json_in(lambda content: (12, 4) if len(content) > 20 else None)
_safetensors_header = m.json_in(lambda content: (0, 8) if len(content) > 8 else None)

DOORS = {
    door.name: door
    for door in (
        Door("tar", lambda: [{"a.tar": _tar(_objects())}, {"a.tar": _tar(_objects(), tarfile.USTAR_FORMAT)},
                             {"a.tar": _tar(_objects(), tarfile.GNU_FORMAT)}],
             {".tar": (*_BINARY, *[m.tar_header] * 6)}, open_tar, ("a.tar", "first", "second"), prepare=_write_index),
        Door("index", _index_sets, {"index.json": _JSON}, open_index,
             ("index.json", "a.tar", "first", "second", "data.path")),
        Door("table", _table_sets, {".jsonl": (*_BINARY, *[json_line] * 6)}, open_table,
             ("objects.jsonl", "data.filters")),
        Door("cameras", lambda: [{"a.cameras.json": _objects()[0]["first.cameras.json"]}],
             {".json": _JSON}, open_cameras, ("object 'a'",)),
        Door("views", _images, {".png": _PNG, ".webp": (*_BINARY, m.webp_header, m.webp_header), "": _BINARY},
             open_view, ("view 3",)),
        Door("ply", _plain_plys, {".ply": (*_TEXT, m.numbered)}, open_ply, ("a.ply",)),
        Door("compressed", _compressed_plys, {".ply": (*_TEXT, m.numbered)}, open_ply, ("a.ply",)),
        Door("safetensors", _safetensors, {"": (*_BINARY, *[_safetensors_header] * 6)}, open_weights,
             ("a.safetensors",)),
        Door("ckpt", _checkpoints, {"": (*_BINARY, *[m.in_zip] * 6)}, open_weights, ("a.ckpt",)),
        Door("images", _own_images, {".json": (*_JSON, *_JSON), ".txt": _TEXT, ".png": _PNG}, open_images,
             ("input", "object")),
        Door("metadata", _metadata, {".txt": (*_ANY_TEXT, *_BINARY), ".json": _JSON}, open_metadata, ("a.tar",)),
        Door("meshes", _meshes,
             {".obj": _TEXT, ".mtl": _TEXT, ".png": _PNG, ".ply": (*_TEXT, m.numbered), ".stl": (*_TEXT, m.numbered),
              ".gltf": _JSON, ".glb": (*_BINARY, *[_glb_header] * 6), ".bin": _BINARY},
             open_mesh, ("",), (UnrenderableMesh,)),
    )
}  # fmt: skip
