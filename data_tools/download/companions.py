"""The files that an OBJ or glTF names: material files, buffers, images."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urljoin, urlsplit

from data_tools.download.fetch import PARTIAL_SUFFIX, Fetcher, FetchError
from data_tools.meshes.mtl import texture_names
from data_tools.meshes.named_files import gltf_uris, library_names, obj_libraries
from data_tools.shared.sources import SIDECAR_SUFFIX
from lgm.errors import first_line, shown

HAVE_COMPANIONS = (".obj", ".gltf")
_MOST_COMPANIONS = 1000
_LONGEST_NAME = 200  # characters between two slashes
_OURS = (SIDECAR_SUFFIX, PARTIAL_SUFFIX, ".etag", ".staged")


def fetch_companions(fetcher: Fetcher, mesh: Path, suffix: str, url: str, folder: Path) -> list[str]:
    """Bring what a mesh file names to its folder; notes on what could not be had.

    mesh: the mesh file as it lies now. url: where it came from; its companions lie relative to it.
    A missing image is no reason to lose the object: the renderer notes it and draws a colour.
    """
    notes: list[str] = []
    names = _gltf_names(mesh, notes) if suffix == ".gltf" else _obj_names(mesh)
    if len(names) > _MOST_COMPANIONS:
        notes.append(f"it names {len(names)} companions, of which the first {_MOST_COMPANIONS} were fetched")
    for name in names[:_MOST_COMPANIONS]:
        file = _bring(fetcher, name, url, folder, notes)
        if file is not None and suffix == ".obj":
            for texture in texture_names(file.read_bytes())[:_MOST_COMPANIONS]:
                _bring(fetcher, texture, urljoin(url, quote(_portable(name))), file.parent, notes)
    return notes


def _obj_names(mesh: Path) -> list[str]:
    lines = obj_libraries(mesh.read_bytes())
    return list(dict.fromkeys(name for line in lines for name in library_names(line)))


def _gltf_names(mesh: Path, notes: list[str]) -> list[str]:
    try:
        return gltf_uris(json.loads(mesh.read_bytes()))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        notes.append(f"its companions are unknown, it is not a glTF: {shown(first_line(error))}")
        return []


def _bring(fetcher: Fetcher, name: str, url: str, folder: Path, notes: list[str]) -> Path | None:
    portable = PurePosixPath(_portable(name))
    if (
        portable.is_absolute()
        or ".." in portable.parts
        or urlsplit(str(portable)).scheme
        or not portable.name
    ):
        # A foreign file may not choose where we write.
        notes.append(f"{shown(repr(name))} lies outside the mesh's folder and was not fetched")
        return None
    if not name.isprintable() or max(map(len, portable.parts)) > _LONGEST_NAME:
        notes.append(f"{shown(repr(name))} is not a file's name and was not fetched")
        return None
    if portable.name.lower().endswith(_OURS):
        notes.append(f"{shown(repr(name))} would overwrite what is kept beside the mesh and was not fetched")
        return None
    path = folder / portable
    if not path.is_file():
        try:
            fetcher.fetch(urljoin(url, quote(str(portable))), path)
        except FetchError as error:
            notes.append(f"{shown(repr(name))}: {error}")
            return None
    return path


def _portable(name: str) -> str:
    return name.strip().strip("\"'").replace("\\", "/")
