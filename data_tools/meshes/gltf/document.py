"""The container of a glTF file: its JSON, its buffers, and what it names beside itself."""

from __future__ import annotations

import base64
import json
import posixpath
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from data_tools.meshes.beside import find_beside
from data_tools.meshes.gltf.packing import unpacked_view
from data_tools.meshes.surfaces import UnrenderableMesh

# `../textures/wood.png` is how many files lie in public collections; no file reaches farther up.
_MAX_LEVELS_UP = 2
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")
_ABSOLUTE = re.compile(r"^(/|[A-Za-z]:)")


class Unreadable(Exception):
    """The file that a URI names can't be had; the message is the reason, in a few words."""


class Document:
    """header: the file's JSON. folder: where relative names begin. notes: for the report."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.notes: list[str] = []
        raw = _mapped(path)
        text, self._binary = _chunks(raw) if raw[:4].tobytes() == b"glTF" else (raw.tobytes(), None)
        self.header: dict[str, Any] = json.loads(text.rstrip(b"\0").decode("utf-8-sig"))
        if not isinstance(self.header, dict):
            raise ValueError("its JSON is no object")
        version = str(self.header.get("asset", {}).get("version", "2.0"))
        if not version.startswith("2."):
            raise UnrenderableMesh(f"glTF {version} is not read, glTF 2.0 is; convert the file first")
        needed = str(self.header.get("asset", {}).get("minVersion", "2.0"))
        if needed != "2.0":
            raise UnrenderableMesh(f"it needs a reader of glTF {needed}, and glTF 2.0 is read")
        self._entries: dict[str, list[dict[str, Any]]] = {}
        self._buffers: dict[int, np.ndarray] = {}
        self._views: dict[int, np.ndarray] = {}

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """A list at the top of the JSON ("nodes"); empty where the file has none."""
        if kind not in self._entries:
            entries = self.header.get(kind, [])
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise UnrenderableMesh(f"its {kind} are no list of objects")
            self._entries[kind] = entries
        return self._entries[kind]

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """Raises UnrenderableMesh where the file names what it lacks."""
        entries = self.entries(kind)
        if not isinstance(index, int) or not 0 <= index < len(entries):
            raise UnrenderableMesh(f"it names {kind}[{index}] of {len(entries)}")
        return entries[index]

    def view(self, index: int) -> tuple[np.ndarray, int | None]:
        """A bufferView's bytes [N] uint8, unpacked, and its byteStride."""
        entry = self.entry("bufferViews", index)
        if index not in self._views:
            self._views[index] = self._read_view(index, entry)
        return self._views[index], entry.get("byteStride")

    def _read_view(self, index: int, entry: dict[str, Any]) -> np.ndarray:
        unpacked = unpacked_view(entry, self.slice, self._has_content(entry))
        if unpacked is not None:
            return unpacked
        return self.slice(entry, f"bufferViews[{index}]")

    def slice(self, entry: dict[str, Any], name: str) -> np.ndarray:
        """The bytes [N] uint8 that an object with buffer, byteOffset and byteLength names."""
        buffer = self._buffer(entry["buffer"])
        start, length = int(entry.get("byteOffset", 0)), int(entry["byteLength"])
        if start < 0 or length < 0 or start + length > len(buffer):
            raise UnrenderableMesh(f"{name} reaches to byte {start + length} of a buffer of {len(buffer)}")
        return buffer[start : start + length]

    def _has_content(self, view: dict[str, Any]) -> bool:
        """Whether the view's own buffer holds bytes, and is no mere placeholder for unpacked ones."""
        index = view.get("buffer")
        buffer = self.entry("buffers", index)
        return "uri" in buffer or (index == 0 and self._binary is not None)

    def _buffer(self, index: int) -> np.ndarray:
        if index not in self._buffers:
            entry = self.entry("buffers", index)
            uri = entry.get("uri")
            if uri is None:
                if index != 0 or self._binary is None:
                    raise UnrenderableMesh(f"buffers[{index}] has no content")
                self._buffers[index] = self._binary
            else:
                try:
                    self._buffers[index] = self.resource(uri)
                except Unreadable as error:
                    raise UnrenderableMesh(f"its buffer {shown(uri)!r} {error}") from error
        return self._buffers[index]

    def resource(self, uri: str, find: Callable[[str, Path], Path | None] = find_beside) -> np.ndarray:
        """The bytes [N] uint8 of a data URI or of a file beside this one; raises Unreadable.

        find: looks for a relative name from a folder; another file than the named one is noted.
        """
        if uri[:5].lower() == "data:":
            return np.frombuffer(_data(uri), dtype=np.uint8)
        path = self._located(uri, find)
        if path.stat().st_size == 0:
            raise Unreadable("is empty")
        return _mapped(path)

    def _located(self, uri: str, find: Callable[[str, Path], Path | None]) -> Path:
        """A file of its own folder, or near it. A foreign file may name nothing farther away: what it names
        is drawn, and with the drawings it may be published."""
        if _SCHEME.match(uri):
            raise Unreadable("is an address, and nothing is fetched; put the file beside the mesh")
        for written in (unquote(uri), uri):
            name = posixpath.normpath(written.replace("\\", "/"))
            if _ABSOLUTE.match(name):  # of the author's own machine: by its last part, as in OBJ
                name = name.rsplit("/", 1)[-1]
            # After normalisation, so that `a/../../..` counts as what it is.
            if name.split("/").count("..") > _MAX_LEVELS_UP:
                raise Unreadable(f"lies more than {_MAX_LEVELS_UP} folders up, where nothing is read")
            path = find(name, self.folder)
            if path is not None:
                if name.isascii() and path.name.lower() != name.rpartition("/")[2].lower():
                    self.notes.append(f"{shown(uri)!r} not found; {path.name!r} is used")
                return path
        raise Unreadable("not found")


def shown(uri: str) -> str:
    """A URI as a note shows it."""
    return uri if len(uri) <= 60 else uri[:57] + "..."


def _mapped(path: Path) -> np.ndarray:
    """A file's bytes [N] uint8, read when they are used."""
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)


def _chunks(raw: np.ndarray) -> tuple[bytes, np.ndarray | None]:
    """The JSON and the binary chunk of a GLB."""
    version, length = struct.unpack_from("<II", raw, 4)
    if version > 100:
        raise ValueError("its header is not a GLB's")
    if version != 2:
        raise UnrenderableMesh(
            f"a GLB of version {version} is not read, version 2 is; convert the file first"
        )
    if length > len(raw):
        raise UnrenderableMesh(f"cut off: {len(raw)} of {length} bytes")
    text, binary, position = None, None, 12
    while position + 8 <= length:
        size, kind = struct.unpack_from("<I4s", raw, position)
        content = raw[position + 8 : position + 8 + size]
        if len(content) < size:
            raise UnrenderableMesh(f"cut off: a chunk of {size} bytes has {len(content)}")
        if kind == b"JSON" and text is None:
            text = content.tobytes()
        elif kind == b"BIN\0" and binary is None:
            binary = content
        # Unknown chunks are skipped, as glTF 2.0 demands of readers.
        position += 8 + size
    if text is None:
        raise UnrenderableMesh("a GLB without JSON")
    return text, binary


def _data(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise Unreadable("is a data URI without data")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    # Some writers break lines, leave the padding out, or use the letters of URLs.
    text = re.sub(r"\s|=", "", unquote(body)).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise Unreadable(f"is a data URI whose base64 is broken ({error})") from error
