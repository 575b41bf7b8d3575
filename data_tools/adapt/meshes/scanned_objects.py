"""Google Scanned Objects (Downs et al. 2022, arXiv 2204.11918) as the hub serves them: WebDataset tars.

`data/gso-train-00000.tar` and so on (suvadityamuk/google-scanned-objects: 1,030 objects, CC BY 4.0): of
each object `<key>.glb`, scaled to longest side 1, `<key>.json` (`name`, `category`, `license_id`, …), and
what is not read here: the scan's own `.obj`, `.mtl`, `.texture.png` and `.thumbnail_0.jpg` to `_4`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data_tools.adapt.meshes.base import MeshLayout, MeshObject, licence_id
from data_tools.shared.naming import is_uid, make_uid

_AUTHOR = "Google LLC"
_LICENCE = "CC-BY-4.0"  # of the set as a whole, where an object's json names none
_MOST_BYTES = 1 << 30  # of one file in a tar; scans have some 10 MB
Sample = dict[str, bytes]


class ScannedObjects(MeshLayout):
    """A folder of tars (at any depth), or one tar."""

    def __init__(self, texture: str | None = None) -> None:
        super().__init__(texture)
        self._notes: list[str] = []

    def objects(self, root: Path) -> Iterator[MeshObject]:
        tars = find_tars(root)
        return (entry for path in tars for entry in self._of_tar(path))

    def notes(self) -> list[str]:
        return self._notes

    def _of_tar(self, path: Path) -> Iterator[MeshObject]:
        try:
            for key, files in samples(path, ("glb", "json")):
                yield _object(key, files)
        except (tarfile.TarError, EOFError, OSError) as error:
            # Its objects so far are whole; the next run finds the rest once the tar is fetched again.
            fault = f"{path} is cut off or broken: {error}; fetch it again"
            yield MeshObject(make_uid(f"{path.stem}.tar"), b"", {}, fault)


def find_tars(root: Path) -> list[Path]:
    """One tar, or all of a folder, in the order of their names; raises FileNotFoundError where there is
    none."""
    tars = [root] if root.is_file() else sorted(root.rglob("*.tar"))
    if not tars:
        raise FileNotFoundError(f"{root} holds no .tar; fetch the data set's data/*.tar into it")
    return tars


def samples(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, Sample]]:
    """Key and files, by extension, of each sample of a WebDataset tar whose members lie beside each other.

    wanted: extensions to read; all others are passed over. Raises tarfile.TarError, EOFError or OSError for
        a tar that is none, or ends in the middle; ValueError for a file beyond 1 GiB.
    """
    held: tuple[str, Sample] | None = None
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if not member.isfile():
                continue
            # WebDataset: the key ends at the first dot of the file's name.
            name = PurePosixPath(member.name)
            stem, _, extension = name.name.partition(".")
            key = str(name.parent / stem)
            if held is not None and held[0] != key:
                yield held
                held = None
            held = held or (key, {})
            if extension in wanted:
                if member.size > _MOST_BYTES:
                    raise ValueError(
                        f"{path}: {member.name} has {member.size} bytes, more than {_MOST_BYTES}"
                    )
                content = tar.extractfile(member).read()  # type: ignore[union-attr]  # a file has one
                if len(content) != member.size:
                    raise EOFError(f"{member.name} has {len(content)} of {member.size} bytes")
                held[1][extension] = content
    if held is not None:
        yield held


def _object(key: str, files: Sample) -> MeshObject:
    name = PurePosixPath(key).name
    uid = name if is_uid(name) else make_uid(f"{name}.glb")
    try:
        known = json.loads(files.get("json", b"{}"))
    except ValueError:
        known = {}
    known = known if isinstance(known, dict) else {}
    if "glb" not in files:
        return MeshObject(uid, b"", {}, "its sample has no .glb")
    return MeshObject(uid, files["glb"], _metadata(uid, name, known))


def _metadata(uid: str, name: str, known: dict[str, Any]) -> dict[str, Any]:
    licence = known.get("license_id") or known.get("license")
    category = known.get("category") or known.get("categories")
    return {
        "uid": uid,
        "name": str(known.get("name") or name),
        "source": f"Google Scanned Objects: {name}",
        "author": _AUTHOR,
        "licence": licence_id(licence if isinstance(licence, str) else None) or _LICENCE,
        "category": category if isinstance(category, str) else None,
    }
