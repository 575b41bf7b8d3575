"""Accessors: arrays over buffer views, of any number type, strided, sparse, normalised."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_tools.meshes.gltf.document import Document
from data_tools.meshes.surfaces import UnrenderableMesh

_NUMBERS = {
    5120: np.dtype("<i1"), 5121: np.dtype("<u1"), 5122: np.dtype("<i2"), 5123: np.dtype("<u2"),
    5124: np.dtype("<i4"), 5125: np.dtype("<u4"), 5126: np.dtype("<f4"), 5130: np.dtype("<f8"),
}  # fmt: skip
# Matrices of two or three rows of small numbers have padded columns; nothing that is drawn uses them.
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
# An accessor without a bufferView takes no bytes of the file, whatever its count.
_MAX_ZEROS = 1 << 25


def read_accessor(document: Document, index: Any) -> np.ndarray:
    """Elements [N, n] in the number type of the file; a view of the file where nothing is sparse."""
    name = f"accessors[{index}]"
    entry = document.entry("accessors", index)
    count, number, width = _shape(entry, name)
    if "bufferView" in entry:
        values = _elements(document, entry, count, number, width, name)
    else:
        values = np.zeros((count, width), dtype=number)
    return _with_sparse(document, entry["sparse"], values, name) if "sparse" in entry else values


def count_of(document: Document, index: Any) -> int:
    """How many elements an accessor has, without reading them."""
    return _shape(document.entry("accessors", index), f"accessors[{index}]")[0]


def read_floats(document: Document, index: Any) -> np.ndarray:
    """Elements [N, n] as numbers: normalised integers are divided by the largest of their type."""
    return as_floats(read_accessor(document, index), is_normalized(document, index))


def is_normalized(document: Document, index: Any) -> bool:
    """Whether an accessor's integers stand for 0..1 or -1..1."""
    return bool(document.entry("accessors", index).get("normalized", False))


def as_floats(values: np.ndarray, normalized: bool) -> np.ndarray:
    """Values as floats, normalised integers divided by their type's maximum, as glTF 2.0 says (3.6.2)."""
    if values.dtype.kind == "f":
        return values
    # Integers of 32 bits are no float32.
    real = np.float32 if values.dtype.itemsize <= 2 else np.float64
    floats = values.astype(real)
    if normalized:
        floats /= np.iinfo(values.dtype).max
        np.maximum(floats, -1, out=floats)  # -128 and -127 are both -1
    return floats


def _shape(entry: dict[str, Any], name: str) -> tuple[int, np.dtype, int]:
    number, width = _NUMBERS.get(entry.get("componentType")), _WIDTHS.get(entry.get("type"))
    if number is None or width is None:
        kind = f"type {entry.get('type')!r} of componentType {entry.get('componentType')!r}"
        raise UnrenderableMesh(f"{name} is of {kind}, which is not read")
    count = int(entry["count"])
    if count < 0 or ("bufferView" not in entry and count > _MAX_ZEROS):
        raise UnrenderableMesh(f"{name} has {count} elements")
    return count, number, width


def _elements(
    document: Document, source: dict[str, Any], count: int, number: np.dtype, width: int, name: str
) -> np.ndarray:
    content, stride = document.view(source["bufferView"])
    offset = int(source.get("byteOffset", 0))
    size = number.itemsize * width
    stride = stride or size
    end = offset + (count - 1) * stride + size if count else 0
    if offset < 0 or stride < 0 or end > len(content):
        raise UnrenderableMesh(f"{name} reaches to byte {end} of a bufferView of {len(content)}")
    return np.ndarray((count, width), number, content, offset, (stride, number.itemsize))


def _with_sparse(document: Document, sparse: dict[str, Any], values: np.ndarray, name: str) -> np.ndarray:
    count, indices = int(sparse["count"]), sparse["indices"]
    number = _NUMBERS[indices["componentType"]]
    where = _elements(document, indices, count, number, 1, f"{name}.sparse.indices")[:, 0].astype(np.int64)
    replaced = _elements(
        document, sparse["values"], count, values.dtype, values.shape[1], f"{name}.sparse.values"
    )
    if count and where.max() >= len(values):
        raise UnrenderableMesh(f"{name}.sparse replaces element {where.max()} of {len(values)}")
    values = np.array(values)
    values[where] = replaced
    return values
