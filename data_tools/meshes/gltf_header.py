"""What a glTF file says of itself that its reader passes over in silence: pictures that can't be read,
extensions that it lacks, poses that it does not apply."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

_TEXTURES = ("baseColorTexture", "emissiveTexture", "diffuseTexture")  # what is drawn, of all that there are


def read_header(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk; ({}, b"") of what is no glTF."""
    raw = path.read_bytes()
    try:
        if raw[:4] != b"glTF":
            header, binary = json.loads(raw), b""
        else:
            (length,) = struct.unpack_from("<I", raw, 12)
            header, binary = json.loads(raw[20 : 20 + length]), raw[28 + length :]
    except (ValueError, struct.error):
        return {}, b""
    return (header, binary) if isinstance(header, dict) else ({}, b"")


def packed_geometry(header: dict[str, Any]) -> str | None:
    """Why a file's triangles can't be had, where they are packed."""
    needed = header.get("extensionsRequired", [])
    if "KHR_draco_mesh_compression" in needed and importlib.util.find_spec("DracoPy") is None:
        return "its triangles are packed with KHR_draco_mesh_compression; pip install DracoPy"
    if "EXT_meshopt_compression" in needed:
        return (
            "its triangles are packed with EXT_meshopt_compression, which is not read here; unpack it first"
        )
    return None


def gltf_notes(header: dict[str, Any], binary: bytes, folder: Path) -> list[str]:
    """Of a file that could be read; for the report."""
    notes = []
    for index in sorted(_drawn_images(header)):
        image = header["images"][index]
        try:
            content = _content(header, image, binary, folder)
            with Image.open(io.BytesIO(content)):
                pass
        except Exception as error:  # noqa: BLE001 - the file is foreign, Pillow raises what it likes
            kind = image.get("mimeType", "")
            name = image.get("name") or image.get("uri", "")[:60] or f"number {index}"
            reason = "cannot be read" if isinstance(error, Image.UnidentifiedImageError) else str(error)
            notes.append(
                f"texture {name!r} {kind} {reason}; its material's colour is used".replace("  ", " ")
            )
    if header.get("skins"):
        notes.append("has a skeleton; drawn as its vertices lie, whatever its pose")
    return notes


def _drawn_images(header: dict[str, Any]) -> set[int]:
    found = set()
    textures, images = header.get("textures", []), header.get("images", [])
    for index in _texture_indices(header.get("materials", [])):
        if index >= len(textures):
            continue
        extensions = textures[index].get("extensions", {}).values()
        source = textures[index].get("source", next((e["source"] for e in extensions if "source" in e), None))
        if source is not None and source < len(images):
            found.add(source)
    return found


def _texture_indices(part: Any) -> set[int]:
    """Wherever they stand: materials keep some in extensions."""
    if isinstance(part, list):
        return set().union(*map(_texture_indices, part))
    if not isinstance(part, dict):
        return set()
    own = {part[name]["index"] for name in _TEXTURES if name in part}
    return own.union(*map(_texture_indices, part.values()))


def _content(header: dict[str, Any], image: dict[str, Any], binary: bytes, folder: Path) -> bytes:
    if "bufferView" in image:
        view = header["bufferViews"][image["bufferView"]]
        uri = header["buffers"][view["buffer"]].get("uri")
        buffer = binary if uri is None else _from_uri(uri, folder)
        start = view.get("byteOffset", 0)
        return buffer[start : start + view["byteLength"]]
    return _from_uri(image["uri"], folder)


def _from_uri(uri: str, folder: Path) -> bytes:
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    for name in (unquote(uri), uri):
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    raise FileNotFoundError("not found")
