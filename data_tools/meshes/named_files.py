"""The files beside a mesh that it is drawn from: material libraries, textures, buffers. Read from the few
lines that name them, without the geometry."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from data_tools.meshes.beside import (
    IMAGE_SUFFIXES,
    decode_name,
    find_beside,
    find_texture,
    same_stem,
    to_utf8,
)
from data_tools.meshes.mtl import texture_names

_MTLLIB = re.compile(rb"^[ \t]*mtllib[ \t]+(.+?)[ \t]*\r?$", re.MULTILINE | re.IGNORECASE)
_LIBRARY = re.compile(r"\S.*?\.mtl(?=\s|$)", re.IGNORECASE)
_PLY_HEADER_BYTES = 1 << 16  # longer headers are no mesh's
# What a mesh that names none would take, by its own name.
ANY_LIBRARY, ANY_IMAGE = "*.mtl", "*.png"


@dataclass(frozen=True)
class NamedFile:
    """name: as the mesh, or its library, gives it. near: the file that names it. path: where it lies; None
    where it is missing."""

    name: str
    near: Path
    path: Path | None


def named_files(mesh: Path) -> list[NamedFile]:
    """In the file's order; raises OSError. Of what is no mesh, nothing."""
    suffix = mesh.suffix.lower()
    if suffix == ".obj":
        return list(_of_obj(mesh))
    if suffix == ".ply":
        with mesh.open("rb") as file:
            names = ply_textures(ply_comments(file.read(_PLY_HEADER_BYTES).partition(b"end_header")[0]))
        return [find_named(name, mesh) for name in names or [ANY_IMAGE]]
    if suffix in (".gltf", ".glb"):
        return [find_named(name, mesh) for name in gltf_uris(_gltf_json(mesh))]
    return []


def find_named(name: str, near: Path) -> NamedFile:
    """By a name that stands in a file: a mesh, or a library."""
    if name in (ANY_LIBRARY, ANY_IMAGE):
        return NamedFile(name, near, same_stem(near, (".mtl",) if name == ANY_LIBRARY else IMAGE_SUFFIXES))
    is_texture = near.suffix.lower() in (".mtl", ".ply")
    return NamedFile(name, near, (find_texture if is_texture else find_beside)(name, near.parent))


def _of_obj(mesh: Path) -> Iterator[NamedFile]:
    lines = obj_libraries(mesh.read_bytes())
    libraries = [find_named(name, mesh) for line in lines for name in library_names(line, mesh.parent)]
    yield from libraries
    if not any(library.path for library in libraries):
        lone = find_named(ANY_LIBRARY, mesh)
        yield lone
        libraries.append(lone)
    has_texture = False
    for library in libraries:
        if library.path is not None:
            for name in texture_names(library.path.read_bytes()):
                texture = find_named(name, library.path)
                has_texture |= texture.path is not None
                yield texture
    if not has_texture:
        yield find_named(ANY_IMAGE, mesh)


def obj_libraries(content: bytes) -> list[str]:
    """The text after `mtllib` in an OBJ, line by line."""
    return list(dict.fromkeys(decode_name(line) for line in _MTLLIB.findall(to_utf8(content))))


def library_names(rest: str, folder: Path | None = None) -> list[str]:
    """The names after `mtllib`: one name that may hold spaces, or several names."""
    whole = rest.strip().strip("\"'")
    if folder is not None and find_beside(whole, folder) is not None:
        return [whole]
    return [name.strip("\"'") for name in _LIBRARY.findall(rest)] or ([whole] if whole else [])


def ply_comments(header: bytes) -> list[str]:
    """Of a PLY file's header, without their key."""
    lines = (decode_name(line).strip() for line in header.replace(b"\r", b"\n").split(b"\n"))
    return [line.partition(" ")[2].strip() for line in lines if line.lower().startswith("comment ")]


def ply_textures(comments: list[str]) -> list[str]:
    """The images that a header's comments name, as MeshLab does (`TextureFile name.png`)."""
    named = (comment.partition(" ") for comment in comments)
    return [name.strip().strip("\"'") for key, _, name in named if key.lower() == "texturefile"]


def gltf_uris(header: Any) -> list[str]:
    """Names of buffers and images that lie beside a glTF; raises TypeError, KeyError or AttributeError for
    JSON that is none."""
    entries = [*header.get("buffers", []), *header.get("images", [])]
    uris = (entry.get("uri", "data:") for entry in entries)
    return list(dict.fromkeys(unquote(uri) for uri in uris if not uri.startswith("data:")))


def _gltf_json(mesh: Path) -> Any:
    with mesh.open("rb") as file:
        start = file.read(20)
        if start[:4] != b"glTF":
            text = start + file.read()
        else:
            # The length of the first chunk, the JSON, stands behind the 12 bytes of a GLB's header.
            text = file.read(struct.unpack_from("<I", start, 12)[0]) if len(start) == 20 else b""
    try:
        document = json.loads(text.decode("utf-8-sig"))
        gltf_uris(document)
    except (ValueError, TypeError, AttributeError, KeyError):
        return {}  # its reader says what is wrong
    return document
