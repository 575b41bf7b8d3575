"""Which meshes to render: folders searched, list files read, one at a time and in a fixed order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.naming import is_uid, make_uid

MESH_SUFFIXES = (".obj", ".glb", ".gltf", ".ply", ".stl")
SIDECAR_SUFFIX = ".meta.json"
# What <uid>.json may say of an object; `group` keeps near-duplicates in one split.
SIDECAR_KEYS = ("uid", "name", "source", "licence", "author", "category", "caption", "group")


@dataclass(frozen=True)
class MeshSource:
    """A mesh file. relative: its path below the input it was found through."""

    path: Path
    relative: str


def find_meshes(inputs: Iterable[str]) -> Iterator[MeshSource]:
    """Every mesh of the inputs, lazily: a list of a million objects is never held.

    An input is a mesh file, a folder (searched recursively) or a text file with one mesh path a
    line, relative to that text file. Raises FileNotFoundError at once for an input that isn't there.
    """
    paths = [Path(text) for text in inputs]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"input {str(path)!r} does not exist; give a mesh, folder or list file")
        if path.is_file() and not _is_mesh(path.name) and path.suffix.lower() not in (".txt", ".lst"):
            raise ValueError(
                f"input {str(path)!r} is neither a mesh ({' '.join(MESH_SUFFIXES)}) nor a list (.txt, .lst)"
            )
    return _walk_inputs(paths)


def _walk_inputs(paths: list[Path]) -> Iterator[MeshSource]:
    for path in paths:
        if path.is_dir():
            yield from _walk_folder(path, path)
        elif _is_mesh(path.name):
            yield MeshSource(path, path.name)
        else:
            yield from _read_list(path)


def _walk_folder(folder: Path, root: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[MeshSource]:
    """above: the folders that this one lies in, by device and number; a link back to one leads nowhere."""
    try:
        found = folder.stat()
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"folder {str(folder)!r} can't be searched: {error.strerror}") from error
    here = (found.st_dev, found.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _walk_folder(Path(entry.path), root, (*above, here))
        elif _is_mesh(entry.name):
            path = Path(entry.path)
            yield MeshSource(path, path.relative_to(root).as_posix())


def _read_list(path: Path) -> Iterator[MeshSource]:
    # Names are bytes to the system; what is no UTF-8 in a list is passed on as it stands there.
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            text = line.strip()
            if text and not text.startswith("#"):
                yield MeshSource(path.parent / text, text)


def _is_mesh(name: str) -> bool:
    return name.lower().endswith(MESH_SUFFIXES)


def sidecar_of(path: Path) -> Path:
    """Where a mesh's metadata lies, whether it is there or not."""
    return path.with_name(path.stem + SIDECAR_SUFFIX)


def read_metadata(source: MeshSource) -> dict[str, Any]:
    """What is known of an object: its sidecar `<stem>.meta.json`, with `uid` and `source` filled in.

    Raises ValueError where the sidecar can't be used.
    """
    sidecar = sidecar_of(source.path)
    known: dict[str, Any] = {}
    if sidecar.is_file():
        try:
            known = json.loads(sidecar.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ValueError(f"{sidecar.name} is no JSON: {error}") from error
        if not isinstance(known, dict):
            raise ValueError(f"{sidecar.name} is no JSON object")
        known = {key: value for key, value in known.items() if value is not None}
    if "uid" in known:
        known["uid"] = str(known["uid"])  # a number in some lists
        if not is_uid(known["uid"]):
            raise ValueError(
                f"{sidecar.name}: uid {known['uid']!r} may have letters, digits, _ and - only, 80 at most"
            )
    # A name that is no UTF-8 could not be written into a shard.
    readable = source.relative.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    defaults = {"uid": make_uid(source.relative), "source": readable}
    return {key: value for key, value in {**defaults, **known}.items() if key in SIDECAR_KEYS}
