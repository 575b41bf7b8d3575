"""Writer of binary glTF 2.0 (.glb) containers, for every exporter of meshes."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942
# The highest index of a type is kept for restarting primitives.
_LAST_UINT16 = 65534
# Filtered with a pyramid; the edge goes on beyond 0..1.
SAMPLER = {
    "magFilter": _LINEAR,
    "minFilter": _LINEAR_MIPMAP_LINEAR,
    "wrapS": _CLAMP_TO_EDGE,
    "wrapT": _CLAMP_TO_EDGE,
}


class GlbBuffer:
    """The binary buffer of a .glb, with its buffer views and accessors."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, content: bytes, **properties: Any) -> int:
        """Append bytes at a multiple of 4; returns the index of their buffer view."""
        self.content += b"\0" * (-len(self.content) % 4)
        offset = len(self.content)
        self.content += content
        self.views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(content), **properties})
        return len(self.views) - 1

    def geometry(self, positions: np.ndarray, normals: np.ndarray, uvs: np.ndarray) -> dict[str, int]:
        """Attributes of vertices [N, 3], [N, 3] and [N, 2]."""
        # glTF requires bounds of positions, and of nothing else.
        bounds = {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
        return {
            "POSITION": self._accessor(positions.astype("<f4"), _FLOAT, "VEC3", _ARRAY_BUFFER, **bounds),
            "NORMAL": self._accessor(normals.astype("<f4"), _FLOAT, "VEC3", _ARRAY_BUFFER),
            "TEXCOORD_0": self._accessor(uvs.astype("<f4"), _FLOAT, "VEC2", _ARRAY_BUFFER),
        }

    def indices(self, faces: np.ndarray, num_vertices: int) -> int:
        """Of faces [F, 3] into so many vertices."""
        small = num_vertices - 1 <= _LAST_UINT16
        array = faces.reshape(-1).astype("<u2" if small else "<u4")
        return self._accessor(array, _UINT16 if small else _UINT32, "SCALAR", _ELEMENT_ARRAY_BUFFER)

    def container(self, document: dict[str, Any]) -> bytes:
        """The .glb of a document that lacks only its accessors, views and buffer: a header and two chunks,
        each padded to a multiple of 4 bytes."""
        buffers = [{"byteLength": len(self.content)}]
        document = {**document, "accessors": self.accessors, "bufferViews": self.views, "buffers": buffers}
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self.content) + b"\0" * (-len(self.content) % 4)
        chunks = struct.pack("<II", len(text), _JSON_CHUNK) + text
        chunks += struct.pack("<II", len(binary), _BINARY_CHUNK) + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def _accessor(self, array: np.ndarray, component: int, kind: str, target: int, **properties: Any) -> int:
        view = self.view(np.ascontiguousarray(array).tobytes(), target=target)
        entry = {"bufferView": view, "componentType": component, "count": len(array), "type": kind}
        self.accessors.append({**entry, **properties})
        return len(self.accessors) - 1
