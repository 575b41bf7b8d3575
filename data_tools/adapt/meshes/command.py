"""Meshes of a public data set -> meshes with sidecars, for data_tools.render: `data_tools.adapt --layout
abo` …"""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path

from data_tools.adapt.meshes.base import MeshLayout, MeshObject
from data_tools.attribution import write_attribution
from data_tools.download.content import check_content
from data_tools.shared.command import make_folder
from data_tools.shared.renders import append_report
from data_tools.shared.sources import SIDECAR_SUFFIX
from lgm.files import atomic, write_text


def adapt_meshes(layout: MeshLayout, root: Path, out: Path, copy: bool = False) -> int:
    """Link, copy or unpack every mesh to `<out>/<uid>.glb` with its `<uid>.meta.json`; the command's exit
    code.

    An object that is there is left alone, so that the same command goes on. Ends with ATTRIBUTION.md.
    """
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    entries = layout.objects(root)
    make_folder(out)
    for entry in entries:
        fault = entry.fault
        if fault is None and entry.uid in seen:
            fault = f"another object of the set has the uid {entry.uid!r} too"
        seen.add(entry.uid)
        fault = fault or _bring(entry, out, copy)
        counts["failed" if fault else "adapted"] += 1
        if fault:
            append_report(
                out,
                {
                    "uid": entry.uid,
                    "source": entry.metadata.get("source"),
                    "status": "failed",
                    "reason": fault,
                },
            )
            print(f"failed {entry.uid}: {fault}", flush=True)
    for note in layout.notes():
        print(note)
    print(f"{counts['adapted']} adapted, {counts['failed']} failed; {out}")
    if counts["adapted"]:
        print(write_attribution(out))
    return 0 if counts["adapted"] else 1


def _bring(entry: MeshObject, out: Path, copy: bool) -> str | None:
    """One object, whole or not at all; why not, or None."""
    mesh = out / f"{entry.uid}.glb"
    if fault := _fault(entry.mesh):
        return fault
    known = {key: value for key, value in entry.metadata.items() if value is not None}
    # The sidecar comes first and the mesh last: a mesh that is there has all that belongs to it.
    write_text(
        mesh.with_name(mesh.stem + SIDECAR_SUFFIX), json.dumps(known, indent=1, ensure_ascii=False) + "\n"
    )
    if mesh.is_file():
        return None
    mesh.unlink(missing_ok=True)  # a link whose file has gone
    if isinstance(entry.mesh, Path) and not copy:
        mesh.symlink_to(entry.mesh.resolve())
        return None
    with atomic(mesh) as partial:
        if isinstance(entry.mesh, Path):
            shutil.copyfile(entry.mesh, partial)
        else:
            partial.write_bytes(entry.mesh)
    return None


def _fault(mesh: Path | bytes) -> str | None:
    """By its content: a Git LFS pointer or half a file in place of a mesh is told now, and not by the
    renderer."""
    if isinstance(mesh, bytes):
        return check_content(io.BytesIO(mesh), ".glb", None)
    with mesh.open("rb") as file:
        return check_content(file, ".glb", None)
