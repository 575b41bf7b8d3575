"""TexVerse (Zhang et al. 2025, arXiv 2508.10868) as its repositories on the hub lie on a disk.

`glbs/glbs_2k/000-041/<id>_2048.glb` and so on, 1k to 8k, an id having one file or several; `metadata.json`
is a table id -> `license`, `user` or `user_display`, `name`, …; `caption.json` a table id -> caption. Ids
are Sketchfab's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_tools.adapt.meshes.base import MeshLayout, MeshObject, json_members, licence_id

_TEXTURES = {"1k": "1024", "2k": "2048", "4k": "4096", "8k": "8192"}
_FILE = re.compile(r"([A-Za-z0-9]{1,64})_(1024|2048|4096|8192)\.glb")
_MODEL_URL = "https://sketchfab.com/3d-models"


class TexVerse(MeshLayout):
    """A folder with `glbs/`; of an object in several sizes the smallest, or that of `texture`."""

    takes_texture = True

    def __init__(self, texture: str | None = None) -> None:
        if texture is not None and texture not in _TEXTURES:
            raise ValueError(f"--texture {texture!r} must be one of {', '.join(_TEXTURES)}")
        super().__init__(texture)
        self._notes: list[str] = []

    def objects(self, root: Path) -> Iterator[MeshObject]:
        files = self._files(root)
        if not files:
            size = f" with textures of {self.texture}" if self.texture else ""
            raise ValueError(f"{root} has no glbs/glbs_*/*/<id>_<size>.glb{size}")
        known = self._table(root, "metadata.json", files)
        captions = self._table(root, "caption.json", files)
        return (
            MeshObject(uid, files[uid], _metadata(uid, known.get(uid), captions.get(uid)))
            for uid in sorted(files)
        )

    def notes(self) -> list[str]:
        return self._notes

    def _files(self, root: Path) -> dict[str, Path]:
        """By id; sizes rise, so that the first is the smallest."""
        wanted = [_TEXTURES[self.texture]] if self.texture else list(_TEXTURES.values())
        found: dict[str, dict[str, Path]] = {}
        for path in sorted((root / "glbs").glob("glbs_*/*/*.glb")):
            if name := _FILE.fullmatch(path.name):
                found.setdefault(name[1], {})[name[2]] = path
        chosen = {uid: [files[size] for size in wanted if size in files] for uid, files in found.items()}
        return {uid: paths[0] for uid, paths in chosen.items() if paths}

    def _table(self, root: Path, name: str, files: dict[str, Path]) -> dict[str, Any]:
        """Of one of the tables, the rows of objects that are there."""
        if not (root / name).is_file():
            what = "licences and authors" if name == "metadata.json" else "captions"
            self._notes.append(f"{root / name} does not exist: {what} are not known")
            return {}
        rows = {uid: row for uid, row in json_members(root / name) if uid in files}
        if name == "metadata.json" and len(rows) < len(files):
            self._notes.append(
                f"{len(files) - len(rows)} of {len(files)} objects have no row in {root / name}"
            )
        return rows


def _metadata(uid: str, row: Any, caption: Any) -> dict[str, Any]:
    row = row if isinstance(row, dict) else {}
    if isinstance(caption, dict):
        caption = caption.get("caption")
    return {
        "uid": uid,
        "source": f"{_MODEL_URL}/{uid}",
        "author": row.get("user_display") or row.get("user"),
        "licence": licence_id(row.get("license") if isinstance(row.get("license"), str) else None),
        "name": row.get("name"),
        "caption": caption if isinstance(caption, str) else None,
    }
