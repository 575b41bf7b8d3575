"""Binary glTF 2.0."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

import lgm
from lgm.files import atomic
from lgm.meshing.files.corners import png, split
from lgm.meshing.mesh import Mesh

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942
# The highest index of a type is kept for restarting primitives.
_LAST_UINT16 = 65534


def save_glb(mesh: Mesh, path: Path) -> None:
    """Write one .glb with the texture inside. Its material is unlit (KHR_materials_unlit), because the
    colours have the light in them; where a viewer does not know that, it is rough and no metal."""
    binary = _Binary()
    attributes, indices = _geometry(mesh, binary)
    image = binary.view(png(mesh))
    document = {
        "asset": {"version": "2.0", "generator": f"lgm-training {lgm.__version__}"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": path.stem}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [
            {
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                },
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "textures": [{"sampler": 0, "source": 0}],
        "samplers": [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ],
        "images": [{"bufferView": image, "mimeType": "image/png"}],
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.content)}],
    }
    with atomic(path) as partial:
        partial.write_bytes(_container(document, bytes(binary.content)))


class _Binary:
    """The buffer, and what describes it."""

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

    def accessor(self, array: np.ndarray, component: int, kind: str, target: int, **properties: Any) -> int:
        view = self.view(np.ascontiguousarray(array).tobytes(), target=target)
        entry = {"bufferView": view, "componentType": component, "count": len(array), "type": kind}
        self.accessors.append({**entry, **properties})
        return len(self.accessors) - 1


def _geometry(mesh: Mesh, binary: _Binary) -> tuple[dict[str, int], int]:
    parts = split(mesh)
    small = len(parts.positions) - 1 <= _LAST_UINT16
    indices = parts.faces.reshape(-1).astype("<u2" if small else "<u4")
    bounds = {"min": parts.positions.min(0).tolist(), "max": parts.positions.max(0).tolist()}
    attributes = {
        "POSITION": binary.accessor(parts.positions.astype("<f4"), _FLOAT, "VEC3", _ARRAY_BUFFER, **bounds),
        "NORMAL": binary.accessor(parts.normals.astype("<f4"), _FLOAT, "VEC3", _ARRAY_BUFFER),
        "TEXCOORD_0": binary.accessor(parts.uvs.astype("<f4"), _FLOAT, "VEC2", _ARRAY_BUFFER),
    }
    kind = _UINT16 if small else _UINT32
    return attributes, binary.accessor(indices, kind, "SCALAR", _ELEMENT_ARRAY_BUFFER)


def _container(document: dict[str, Any], binary: bytes) -> bytes:
    """The .glb container: a header and two chunks, each padded to a multiple of 4 bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<II", len(text), _JSON_CHUNK) + text
    chunks += struct.pack("<II", len(binary), _BINARY_CHUNK) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
