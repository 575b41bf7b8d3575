"""Items to be fetched: one per object."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from lgm.errors import shown

_FOLDER_OR_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True)
class Item:
    """An object.

    url: http, https, file, or a local path. path: where it goes, below the output folder.
    metadata: for its sidecar, keys as in data_tools.shared.sources.SIDECAR_KEYS.
    with_companions: also fetch the files that an OBJ or glTF names, from beside it.
    fault: why it can't even be tried, or None.
    """

    uid: str
    url: str
    path: PurePosixPath
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    with_companions: bool = False
    fault: str | None = None


def path_fault(path: PurePosixPath) -> str | None:
    """What keeps a path of somebody's list from being one below the output folder, or None."""
    if path.parts and all(_FOLDER_OR_FILE.fullmatch(part) for part in path.parts):
        return None
    return (
        f"its path {shown(repr(str(path)))} may have letters, digits, `_`, `-` and `.` between its slashes, "
        "and must stay within the output folder"
    )
