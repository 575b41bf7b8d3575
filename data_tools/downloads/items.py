"""What is to be fetched: one item an object."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any


@dataclass(frozen=True)
class Item:
    """An object.

    url: http, https, file, or a local path. path: where it goes, below the output folder.
    metadata: for its sidecar, keys as in data_tools.sources.SIDECAR_KEYS.
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
