"""Which meshes to render: folders searched, list files read, one at a time and in a fixed order."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_tools.shared.naming import is_uid, make_uid
from lgm.files import read_text, text_encoding

MESH_SUFFIXES = (".obj", ".glb", ".gltf", ".ply", ".stl")
# What other programs call meshes and scenes; named where they are passed over.
OTHER_SUFFIXES = (
    ".3dm", ".3ds", ".3mf", ".abc", ".amf", ".blend", ".c4d", ".dae", ".dxf", ".fbx", ".iges", ".igs", ".lwo",
    ".ma", ".max", ".mb", ".off", ".pmx", ".skp", ".step", ".stp", ".usd", ".usda", ".usdc", ".usdz", ".vox",
    ".vrm", ".wrl", ".x3d", ".x_t",
)  # fmt: skip
SIDECAR_SUFFIX = ".meta.json"
# What <uid>.json may say of an object; `group` keeps near-duplicates in one split.
SIDECAR_KEYS = ("uid", "name", "source", "licence", "author", "category", "caption", "group")


@dataclass(frozen=True)
class MeshSource:
    """A mesh file. relative: its path below the input it was found through."""

    path: Path
    relative: str


def find_meshes(inputs: Iterable[str], others: Counter[str] | None = None) -> Iterator[MeshSource]:
    """Every mesh of the inputs, lazily: a list of a million objects is never held.

    An input is a mesh file, a folder (searched recursively) or a text file with one mesh path a
    line, relative to that text file. Raises FileNotFoundError at once for an input that isn't there.
    others: counts files of other kinds by their suffix, on the way.
    """
    others = Counter() if others is None else others
    paths = [Path(text) for text in inputs]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"input {str(path)!r} does not exist; give a mesh, folder or list file")
        if path.is_file() and not _is_mesh(path.name) and path.suffix.lower() not in (".txt", ".lst"):
            raise ValueError(
                f"input {str(path)!r} is neither a mesh ({' '.join(MESH_SUFFIXES)}) nor a list (.txt, .lst)"
            )
    return _walk_inputs(paths, others)


def other_kinds(others: Counter[str]) -> str:
    """`5 files of other kinds: .dae 4, .fbx 1 (not read; convert them)`."""
    counts = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
    return f"{others.total()} files of other kinds: {counts} (not read; convert them to .glb)"


def _walk_inputs(paths: list[Path], others: Counter[str]) -> Iterator[MeshSource]:
    for path in paths:
        if path.is_dir():
            yield from _walk_folder(path, path, others)
        elif _is_mesh(path.name):
            yield MeshSource(path, path.name)
        else:
            yield from _read_list(path, others)


def _walk_folder(
    folder: Path, root: Path, others: Counter[str], above: tuple[tuple[int, int], ...] = ()
) -> Iterator[MeshSource]:
    """above: the folders that this one lies in, by device and number; a link back to one leads nowhere."""
    try:
        status = folder.stat()
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"folder {str(folder)!r} can't be searched: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.is_dir():
            if entry.name != "__MACOSX":
                yield from _walk_folder(Path(entry.path), root, others, (*above, here))
        elif _is_mesh(entry.name):
            path = Path(entry.path)
            yield MeshSource(path, path.relative_to(root).as_posix())
        else:
            _count_other(entry.name, others)


def _read_list(path: Path, others: Counter[str]) -> Iterator[MeshSource]:
    # Names are bytes to the system; what is no UTF-8 in a list is passed on as it stands there.
    with path.open(encoding=text_encoding(path), errors="surrogateescape") as lines:
        for line in lines:
            text = line.strip()
            if not text or text.startswith("#") or _count_other(text, others) or _is_apple_double(text):
                continue
            if "\\" in text and not (path.parent / text).exists():
                text = text.replace("\\", "/")  # a list that Windows wrote
            yield MeshSource(path.parent / text, text)


def _is_mesh(name: str) -> bool:
    return name.lower().endswith(MESH_SUFFIXES) and not _is_apple_double(name)


def _is_apple_double(path: str) -> bool:
    """`._chair.glb`: what macOS keeps of a file on a foreign disk; no mesh."""
    return path.replace("\\", "/").rpartition("/")[2].startswith("._")


def _count_other(name: str, others: Counter[str]) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in OTHER_SUFFIXES or _is_apple_double(name):
        return False
    others[suffix] += 1
    return True


def sidecar_of(path: Path) -> Path:
    """Where a mesh's metadata lies, whether it is there or not."""
    return path.with_name(path.stem + SIDECAR_SUFFIX)


def read_metadata(source: MeshSource) -> dict[str, Any]:
    """The metadata of an object: its sidecar `<stem>.meta.json`, with `uid` and `source` filled in.

    Raises ValueError where the sidecar can't be used.
    """
    sidecar = sidecar_of(source.path)
    known: dict[str, Any] = {}
    if sidecar.is_file():
        try:
            known = json.loads(read_text(sidecar))
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
