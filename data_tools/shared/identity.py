"""Which files an object was drawn from, written beside its images: a later run draws it again where they have
changed, and tells another mesh of the same name from it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.meshes.named_files import find_named, named_files
from lgm.files import file_sha256, write_text

SOURCE_NAME = "source.json"
SAME, CHANGED, OTHER = "same", "changed", "other"


@dataclass(frozen=True)
class SourceRecord:
    """meshes: their paths. files: [path, bytes, time of change, sha256] of them and of what they name.
    missing: [file that names it, name] of what
    is not there."""

    meshes: tuple[str, ...]
    files: tuple[tuple[str, int, int, str], ...]
    missing: tuple[tuple[str, str], ...]

    @property
    def content(self) -> tuple[str, ...]:
        """Checksums of the mesh's files: equal for equal content, whatever the names."""
        return tuple(digest for *_, digest in self.files)

    def to_json(self) -> str:
        """The record as text."""
        return json.dumps(
            {"meshes": self.meshes, "files": self.files, "missing": self.missing}, indent=1, ensure_ascii=True
        )


def describe(meshes: Sequence[Path]) -> SourceRecord:
    """An object's files as they are now; raises OSError. Of a variant all its meshes."""
    files: dict[Path, None] = {}
    missing = []
    for mesh in meshes:
        files[_absolute(mesh)] = None
        for named in named_files(mesh):
            if named.path is None:
                missing.append((str(_absolute(named.near)), named.name))
            else:
                files[_absolute(named.path)] = None
    return SourceRecord(
        tuple(str(_absolute(mesh)) for mesh in meshes),
        tuple((str(path), *_stat(path), file_sha256(path)) for path in files),
        tuple(missing),
    )


def read_record(folder: Path) -> SourceRecord | None:
    """None where an object's folder has none: it was drawn by an older version, or by another program."""
    try:
        content: Any = json.loads((folder / SOURCE_NAME).read_text("utf-8"))
        return SourceRecord(
            tuple(content["meshes"]),
            tuple((str(p), int(size), int(time), str(digest)) for p, size, time, digest in content["files"]),
            tuple((str(mesh), str(name)) for mesh, name in content["missing"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def compare(folder: Path, meshes: Sequence[Path] | None = None) -> str:
    """SAME, CHANGED (these meshes were drawn, and they or what they name is another now), or OTHER.

    folder: a rendered object's. meshes: those that it should be drawn from; None for those that it was.
    Contents are read only where sizes or times say that they may differ, or the meshes have moved; where they
    are the same after all, the folder's record is brought up to date.
    """
    record = read_record(folder)
    if record is None:
        return SAME  # nothing is known of it
    paths = [Path(mesh) for mesh in record.meshes] if meshes is None else meshes
    # Another path may be the same file in another folder: its content decides below.
    is_moved = record.meshes != tuple(str(_absolute(mesh)) for mesh in paths)
    if not is_moved and _untouched(record):
        return SAME
    try:
        now = describe(paths)
    except OSError:
        return OTHER if is_moved else CHANGED
    if now.content == record.content and len(now.missing) == len(record.missing):
        write_text(folder / SOURCE_NAME, now.to_json() + "\n")
        return SAME
    return OTHER if is_moved else CHANGED


def mesh_digest(mesh: Path) -> str:
    """sha256 of a mesh's file; raises OSError."""
    return file_sha256(mesh)


def _untouched(record: SourceRecord) -> bool:
    try:
        if any(_stat(Path(path)) != (size, time) for path, size, time, _ in record.files):
            return False
    except OSError:
        return False
    # A texture that was missing and has come is a change, though no file that was there is another.
    return all(find_named(name, Path(near)).path is None for near, name in record.missing)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def _stat(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
