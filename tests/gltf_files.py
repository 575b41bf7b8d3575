"""Small glTF files of every kind, for tests of the reader."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_NUMBERS = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}

# A quadrilateral that faces +z, no two corners alike, and its two triangles.
POSITIONS = np.array([[0, 0, 0], [3, 0, 0], [3, 2, 0], [0, 1, 0]], dtype=np.float32)
INDICES = np.array([0, 1, 2, 0, 2, 3], dtype=np.uint16)
UV = np.array([[0.25, 1], [1, 1], [1, 0.5], [0.25, 0]], dtype=np.float32)
FACES = POSITIONS[INDICES].reshape(2, 3, 3)


class GltfFile:
    """The JSON and the binary of a file in the making."""

    def __init__(self, **header: Any) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, **header}
        self.binary = b""

    def add(self, kind: str, **entry: Any) -> int:
        self.json.setdefault(kind, []).append(entry)
        return len(self.json[kind]) - 1

    def view(self, content: bytes, **more: Any) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        start = len(self.binary)
        self.binary += content
        return self.add("bufferViews", buffer=0, byteOffset=start, byteLength=len(content), **more)

    def accessor(self, values: Any, number: str = "float32", stride: int | None = None, **more: Any) -> int:
        """stride: bytes from element to element, with rubbish in between."""
        rows = np.asarray(values).astype(number)
        rows = rows.reshape(len(rows), -1)
        raw, size = rows.tobytes(), rows.shape[1] * rows.itemsize
        if stride is not None:
            raw = b"".join(raw[i : i + size] + b"\xab" * (stride - size) for i in range(0, len(raw), size))
        stored = {"bufferView": self.view(raw, **({} if stride is None else {"byteStride": stride}))}
        kind = {"componentType": _NUMBERS[number], "type": _TYPES[rows.shape[1]]}
        return self.add("accessors", count=len(rows), **kind, **stored, **more)

    def image(self, image: Image.Image, kind: str = "PNG", **more: Any) -> int:
        return self.add("images", bufferView=self.view(encoded(image, kind)), **more)

    def texture(self, image: Image.Image, **more: Any) -> int:
        return self.add("textures", source=self.image(image), **more)

    def textured(self, image: Image.Image, info: dict | None = None, **more: Any) -> int:
        """A material."""
        base = {"baseColorTexture": {"index": self.texture(image), **(info or {})}}
        return self.add("materials", pbrMetallicRoughness=base, **more)

    def primitive(self, material: int | None = None, indices: int | None = None, **attributes: int) -> dict:
        """The quadrilateral, where nothing else is given."""
        given = {"POSITION": attributes.pop("POSITION", None), **attributes}
        if given["POSITION"] is None:
            given["POSITION"] = self.accessor(POSITIONS)
            indices = self.accessor(INDICES, "uint16") if indices is None else indices
        made = {"attributes": given, "indices": indices, "material": material}
        return {key: value for key, value in made.items() if value is not None}

    def node(self, *primitives: dict, mesh: dict | None = None, **entry: Any) -> int:
        """With a mesh of these primitives."""
        if primitives:
            entry["mesh"] = self.add("meshes", primitives=list(primitives), **(mesh or {}))
        return self.add("nodes", **entry)

    def save(self, folder: Path, name: str = "a.glb") -> Path:
        path = folder / name
        if "buffers" not in self.json:
            self.json["buffers"] = [{"byteLength": len(self.binary)}]
        if path.suffix == ".gltf":
            if "uri" not in self.json["buffers"][0]:
                content = base64.b64encode(self.binary).decode()
                self.json["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{content}"
            path.write_text(json.dumps(self.json))
            return path
        text = json.dumps(self.json).encode()
        chunks = [
            (b"JSON", text + b" " * (-len(text) % 4)),
            (b"BIN\0", self.binary + b"\0" * (-len(self.binary) % 4)),
        ]
        body = b"".join(struct.pack("<I4s", len(content), kind) + content for kind, content in chunks)
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
        return path


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    held = io.BytesIO()
    image.save(held, kind)
    return held.getvalue()


def color(*rgba: int) -> Image.Image:
    """An image of one colour, RGB or RGBA."""
    return Image.new("RGB" if len(rgba) == 3 else "RGBA", (4, 4), rgba)
