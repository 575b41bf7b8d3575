"""The interface of mesh layouts: which mesh files a data set has, and what its tables say of each."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lgm.files import text_encoding

_CHUNK = 1 << 20
# Sketchfab's names of its licences, as TexVerse's metadata has them.
_SKETCHFAB_LICENCES = {
    "cc attribution": "CC-BY-4.0",
    "cc attribution-sharealike": "CC-BY-SA-4.0",
    "cc attribution-noderivs": "CC-BY-ND-4.0",
    "cc attribution-noncommercial": "CC-BY-NC-4.0",
    "cc attribution-noncommercial-sharealike": "CC-BY-NC-SA-4.0",
    "cc attribution-noncommercial-noderivs": "CC-BY-NC-ND-4.0",
    "cc0 public domain": "CC0-1.0",
    "cc-by-4.0": "CC-BY-4.0",
    "cc0-1.0": "CC0-1.0",
}


class MissingObject(ValueError):
    """An object that a table names and whose mesh is not there, or cannot be read; the message says why."""


@dataclass(frozen=True)
class MeshObject:
    """One object of a data set.

    mesh: the file, or its content where it lies in an archive. metadata: keys of data_tools.shared.sources.
    fault: why it cannot be had, or None.
    """

    uid: str
    mesh: Path | bytes
    metadata: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None


class MeshLayout(ABC):
    """texture: of data sets that have meshes with textures of several sizes: `1k`, `2k`, …; None is the
    smallest."""

    takes_texture = False

    def __init__(self, texture: str | None = None) -> None:
        self.texture = texture

    @abstractmethod
    def objects(self, root: Path) -> Iterator[MeshObject]:
        """The objects below a folder, in a fixed order; those with a `fault` too.

        Raises FileNotFoundError or ValueError where the folder is not laid out so.
        """

    def notes(self) -> list[str]:
        """What was assumed of the data set, once all objects were read: a line each."""
        return []


def licence_id(name: str | None) -> str | None:
    """The SPDX name of a licence that a data set's table names; any other text as it stands."""
    if not name:
        return None
    return _SKETCHFAB_LICENCES.get(name.strip().lower(), name.strip())


def json_members(path: Path) -> Iterator[tuple[str, Any]]:
    """Key and value of a JSON object, one after the other: a table of a gigabyte is not held.

    Raises ValueError, naming the file, where it is not a whole JSON object.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding=text_encoding(path)) as file:
        buffer = file.read(_CHUNK).lstrip()
        if not buffer.startswith("{"):
            raise ValueError(f"{path} is not a JSON object")
        buffer, ended = buffer[1:], False
        while True:
            buffer = buffer.lstrip(" \t\r\n,")
            if buffer.startswith("}"):
                return
            try:
                key, end = decoder.raw_decode(buffer)
                colon = _skip_space(buffer, end)
                if not isinstance(key, str) or buffer[colon : colon + 1] != ":":
                    raise ValueError("a key and a colon are expected")
                value, end = decoder.raw_decode(buffer, _skip_space(buffer, colon + 1))
                # A number at the end of what is read may go on.
                if _skip_space(buffer, end) >= len(buffer):
                    raise ValueError("it ends in the middle")
            except (ValueError, IndexError) as error:
                more = file.read(_CHUNK)
                if ended or not more:
                    raise ValueError(f"{path} is not whole JSON: {' '.join(str(error).split())}") from error
                buffer += more
                continue
            yield key, value
            buffer = buffer[end:]


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start] in " \t\r\n":
        start += 1
    return start
