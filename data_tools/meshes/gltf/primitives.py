"""Primitives: indexed triangles with attributes, morphed by their default weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_tools.meshes.gltf.accessors import as_floats, count_of, is_normalized, read_accessor, read_floats
from data_tools.meshes.gltf.document import Document
from data_tools.meshes.gltf.packing import DRACO, draco_is_installed, unpacked_draco
from data_tools.meshes.surfaces import UnrenderableMesh

# glTF's numbers of `mode`, which are OpenGL's.
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_NOT_DRAWN = {0: "points", 1: "lines", 2: "lines", 3: "lines"}


@dataclass
class Triangles:
    """corners: [F, 3] into the vertices. attributes: by their names in the file, [V, n] each, as numbers."""

    corners: np.ndarray
    attributes: dict[str, np.ndarray]


def what_is_not_drawn(primitive: dict[str, Any]) -> str | None:
    """A primitive without triangles, in a word."""
    if "POSITION" not in primitive.get("attributes", {}):
        return "primitive without positions"
    return _NOT_DRAWN.get(primitive.get("mode", _TRIANGLES))


def num_triangles(document: Document, primitive: dict[str, Any]) -> int:
    """Without reading them; 0 for points and lines."""
    if what_is_not_drawn(primitive) is not None:
        return 0
    source = primitive["indices"] if "indices" in primitive else primitive["attributes"]["POSITION"]
    count = count_of(document, source)
    # A strip's or fan's every corner from the third on makes a triangle.
    return count // 3 if primitive.get("mode", _TRIANGLES) == _TRIANGLES else max(count - 2, 0)


def read_triangles(
    document: Document, primitive: dict[str, Any], names: Sequence[str], weights: Sequence[float]
) -> Triangles:
    """names: of the attributes that are wanted, where the primitive has them. weights: of its morph targets.

    Raises UnrenderableMesh.
    """
    extension = primitive.get("extensions", {}).get(DRACO)
    # Without the decoder, the plain copy that some exporters leave beside the packed one.
    packed = extension is not None and (draco_is_installed() or not _has_plain_copy(document, primitive))
    if packed:
        indices, attributes = _read_draco(document, primitive, extension, names)
    else:
        accessor_of = primitive["attributes"]
        attributes = {name: read_floats(document, accessor_of[name]) for name in names if name in accessor_of}
        indices = read_accessor(document, primitive["indices"])[:, 0] if "indices" in primitive else None
    num_vertices = len(attributes["POSITION"])
    if indices is None:
        indices = np.arange(num_vertices)
    if len(indices) and indices.max() >= num_vertices:
        raise UnrenderableMesh(f"a triangle names vertex {indices.max()} of {num_vertices}")
    for name, values in attributes.items():
        if len(values) < num_vertices:
            raise UnrenderableMesh(f"{name} has {len(values)} elements for {num_vertices} vertices")
    corners = _corners(indices.astype(np.int64), _TRIANGLES if packed else primitive.get("mode", _TRIANGLES))
    corners, used = _compacted(corners, num_vertices)
    attributes = {name: values if used is None else values[used] for name, values in attributes.items()}
    _morph(document, primitive, attributes, weights, used)
    return Triangles(corners, attributes)


def _corners(indices: np.ndarray, mode: int) -> np.ndarray:
    """[F, 3], each triangle's corners in the order that faces its front."""
    if mode == _TRIANGLES:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if len(indices) < 3:
        return np.zeros((0, 3), dtype=np.int64)
    if mode == _STRIP:
        corners = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
        corners[1::2] = corners[1::2][:, [0, 2, 1]]  # every second one is wound the other way round
        return corners
    if mode == _FAN:
        return np.stack([indices[1:-1], indices[2:], np.full(len(indices) - 2, indices[0])], axis=1)
    raise UnrenderableMesh(f"a primitive of mode {mode} is not read")


def _compacted(corners: np.ndarray, num_vertices: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Corners into the used vertices alone, and which these are: many primitives may share one long
    accessor. None where nearly all are used."""
    if num_vertices <= 2 * corners.size:
        return corners, None
    used, inverse = np.unique(corners, return_inverse=True)
    return inverse.reshape(corners.shape), used


def _has_plain_copy(document: Document, primitive: dict[str, Any]) -> bool:
    return "bufferView" in document.entry("accessors", primitive["attributes"]["POSITION"])


def _read_draco(
    document: Document, primitive: dict[str, Any], extension: dict[str, Any], names: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    content, _ = document.view(extension["bufferView"])
    indices, unpacked = unpacked_draco(content.tobytes())
    attributes = {}
    for name in names:
        if name not in primitive["attributes"]:
            continue
        number = extension["attributes"].get(name)
        if number is None:  # beside the packed ones
            attributes[name] = read_floats(document, primitive["attributes"][name])
        elif number not in unpacked:
            raise UnrenderableMesh(f"{DRACO} lacks {name}")
        else:
            normalized = is_normalized(document, primitive["attributes"][name])
            attributes[name] = as_floats(unpacked[number], normalized)
    if "POSITION" not in attributes:
        raise UnrenderableMesh(f"{DRACO} lacks POSITION")
    return indices, attributes


def _morph(
    document: Document,
    primitive: dict[str, Any],
    attributes: dict[str, np.ndarray],
    weights: Sequence[float],
    used: np.ndarray | None,
) -> None:
    """In place: each attribute plus its targets' displacements times their weights."""
    # Weights may be missing, or be more than the targets.
    for target, weight in zip(primitive.get("targets", []), weights, strict=False):
        if not weight:
            continue
        for name in attributes.keys() & target.keys():
            moved = read_floats(document, target[name])
            moved = moved if used is None else moved[used]
            base = attributes[name]
            width = min(base.shape[1], moved.shape[1])
            # A copy: the file's own numbers may be those of other primitives, too.
            base = np.array(base, dtype=np.float64)
            base[:, :width] += weight * moved[: len(base), :width]
            attributes[name] = base
