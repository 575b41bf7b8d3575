"""Meshes as objects: each with a uid of its own, and with what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_tools.shared.identity import OTHER, compare, mesh_digest, read_record
from data_tools.shared.naming import make_uid
from data_tools.shared.sources import MeshSource, read_metadata

# A mesh, its metadata and notes.
NamedSource = tuple[MeshSource, dict[str, Any], tuple[str, ...]]


def named_apart(
    sources: Iterator[MeshSource], renders: Path, refuse: Callable[[dict[str, Any], str], None]
) -> Iterator[NamedSource]:
    """Meshes with their metadata and notes.

    Another mesh of the same name (`a/model.glb`, `b/model.glb`, of one run or of two) gets a uid with a hash
    of its content; one whose sidecar gives it a uid that is taken is reported, as is a sidecar that can't be
    used. A mesh that is named twice is drawn once.

    renders: where objects of earlier runs lie. refuse: takes metadata and the reason.
    """
    seen: dict[str, Path] = {}
    for source in sources:
        try:
            metadata = read_metadata(source)
        except ValueError as error:
            refuse({"uid": None, "source": source.relative}, str(error))
            continue
        uid, notes = metadata["uid"], ()
        taken = seen.get(uid)
        if taken is not None and _is_there(taken, source.path) and taken.samefile(source.path):
            continue
        if taken is None and compare(renders / uid, [source.path]) == OTHER:
            taken = Path(read_record(renders / uid).meshes[0])
        if taken is not None:
            is_same_path = _is_there(source.path) and uid == make_uid(source.relative)
            if not is_same_path:
                refuse({**metadata, "source": str(source.path)}, f"uid {uid!r} is taken already by {taken}")
                continue
            uid = f"{uid[:71]}-{mesh_digest(source.path)[:8]}"
            if uid in seen:
                continue  # the same content once more
            notes = (f"uid {metadata['uid']!r} is taken by {taken}; drawn as {uid!r}",)
            metadata = {**metadata, "uid": uid}
        seen[uid] = source.path
        yield source, metadata, notes


def _is_there(*paths: Path) -> bool:
    return all(path.is_file() for path in paths)
