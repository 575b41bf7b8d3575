"""Packed geometry: meshopt's buffer views and Draco's primitives, through the packages of these names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from data_tools.meshes.surfaces import UnrenderableMesh

_MESHOPT = ("KHR_meshopt_compression", "EXT_meshopt_compression")
DRACO = "KHR_draco_mesh_compression"
# A small file may claim to unpack to anything.
_MAX_UNPACKED_BYTES = 1 << 30


def unpacked_view(
    view: dict[str, Any], read: Callable[[dict[str, Any], str], np.ndarray], has_fallback: bool
) -> np.ndarray | None:
    """A bufferView's unpacked bytes [N] uint8; None where it is not packed.

    read: the bytes that an object with buffer, byteOffset and byteLength names.
    has_fallback: whether the view's own buffer holds the same, unpacked.
    Raises UnrenderableMesh.
    """
    name = next((name for name in _MESHOPT if name in view.get("extensions", {})), None)
    if name is None:
        return None
    if importlib.util.find_spec("meshopt") is None:
        if has_fallback:
            return None
        raise UnrenderableMesh(f"its triangles are packed with {name}; pip install meshopt")
    import meshopt

    packed = view["extensions"][name]
    count, stride = int(packed["count"]), int(packed["byteStride"])
    if not 0 <= count * stride <= _MAX_UNPACKED_BYTES:
        raise UnrenderableMesh(f"{name}: {count} elements of {stride} bytes are more than can be unpacked")
    content = np.ascontiguousarray(read(packed, name))
    try:
        rows = meshopt.decode_gltf_buffer(
            content, count, stride, packed.get("mode", "ATTRIBUTES"), packed.get("filter", "NONE")
        )
    except Exception as error:  # a decoder of foreign bytes
        raise UnrenderableMesh(f"{name}: can't be unpacked ({error})") from error
    return np.ascontiguousarray(rows).view(np.uint8).reshape(-1)


def draco_is_installed() -> bool:
    """Whether DracoPy can be imported."""
    return importlib.util.find_spec("DracoPy") is not None


def unpacked_draco(content: bytes) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Indices of triangles [F * 3], and attributes [V, n] by their unique ids, in their own number types.

    Raises UnrenderableMesh.
    """
    if not draco_is_installed():
        raise UnrenderableMesh(f"its triangles are packed with {DRACO}; pip install DracoPy")
    import DracoPy

    try:
        mesh = DracoPy.decode(content)
        faces = np.asarray(mesh.faces).reshape(-1)
    except Exception as error:  # a decoder of foreign bytes
        raise UnrenderableMesh(f"{DRACO}: can't be unpacked ({error})") from error
    return faces, {attribute["unique_id"]: np.asarray(attribute["data"]) for attribute in mesh.attributes}
