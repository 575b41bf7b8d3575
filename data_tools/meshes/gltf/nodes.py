"""The scene graph: which mesh stands where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from data_tools.meshes.gltf.accessors import count_of, read_floats
from data_tools.meshes.gltf.document import Document
from data_tools.meshes.surfaces import UnrenderableMesh

_INSTANCING = "EXT_mesh_gpu_instancing"
_VISIBILITY = "KHR_node_visibility"
_INSTANCE_DEFAULTS = {
    "TRANSLATION": (0.0, 0.0, 0.0),
    "ROTATION": (0.0, 0.0, 0.0, 1.0),
    "SCALE": (1.0, 1.0, 1.0),
}
_MAX_NODES = 1_000_000  # a graph that is no tree can have any number of paths


@dataclass(frozen=True)
class PlacedMesh:
    """A mesh in the scene.

    node: its JSON. world: [4, 4], the node's own transform in the scene.
    num_instances: how often it stands there, 1 without EXT_mesh_gpu_instancing.
    """

    node: dict[str, Any]
    world: np.ndarray
    num_instances: int


def placed_meshes(document: Document) -> Iterator[PlacedMesh]:
    """Each node of the scene that has a mesh; raises UnrenderableMesh for a graph with a circle."""
    visited = 0
    # Depth first without recursion: files may be nested deeper than Python's stack.
    stack = [(root, np.eye(4), frozenset()) for root in reversed(_roots(document))]
    while stack:
        index, parent, above = stack.pop()
        node = document.entry("nodes", index)
        visited += 1
        if index in above or visited > _MAX_NODES:
            raise UnrenderableMesh(
                f"nodes[{index}] stands below itself" if index in above else "too many nodes"
            )
        if not node.get("extensions", {}).get(_VISIBILITY, {}).get("visible", True):
            continue
        world = parent @ local_matrix(node)
        if "mesh" in node:
            yield PlacedMesh(node, world, _num_instances(document, node))
        children = node.get("children", [])
        if children:
            below = above | {index}
            # Reversed, so that the first child is taken from the stack first: the file's order stays.
            stack += [(child, world, below) for child in reversed(children)]


def _roots(document: Document) -> list[int]:
    """The nodes that the scene begins with; of several scenes the default one, else the first."""
    scenes = document.entries("scenes")
    if not scenes:
        nodes = document.entries("nodes")
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [index for index in range(len(nodes)) if index not in children]
        if nodes and not roots:
            raise UnrenderableMesh("nodes[0] stands below itself")
        return roots
    index = document.header.get("scene", 0)
    scene = document.entry("scenes", index)
    if len(scenes) > 1:
        name = f" {scene['name']!r}" if scene.get("name") else ""
        document.notes.append(f"has {len(scenes)} scenes; scene {index}{name} is drawn")
    return scene.get("nodes", [])


def world_matrices(document: Document, indices: list[int]) -> Float[np.ndarray, "J 4 4"]:
    """The transforms of nodes in the scene, whether they belong to the drawn one or not."""
    nodes = document.entries("nodes")
    parents = {child: index for index, node in enumerate(nodes) for child in node.get("children", [])}
    known: dict[int, np.ndarray] = {}
    for index in indices:
        chain, at = [], index
        while at is not None and at not in known:
            # A chain without a circle is no longer than there are nodes.
            if len(chain) > len(nodes):
                raise UnrenderableMesh(f"nodes[{index}] stands below itself")
            chain.append(at)
            at = parents.get(at)
        for at in reversed(chain):
            above = known[parents[at]] if at in parents else np.eye(4)
            known[at] = above @ local_matrix(document.entry("nodes", at))
    return np.stack([known[index] for index in indices])


def local_matrix(node: dict[str, Any]) -> Float[np.ndarray, "4 4"]:
    """A node's transform: its matrix, or translation · rotation (xyzw) · scale."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T  # stored column by column
    return matrices(
        np.array([node.get("translation", (0, 0, 0))], dtype=np.float64),
        np.array([node.get("rotation", (0, 0, 0, 1))], dtype=np.float64),
        np.array([node.get("scale", (1, 1, 1))], dtype=np.float64),
    )[0]


def matrices(
    translations: Float[np.ndarray, "K 3"],
    rotations: Float[np.ndarray, "K 4"],
    scales: Float[np.ndarray, "K 3"],
) -> Float[np.ndarray, "K 4 4"]:
    """Scaled, then turned by quaternions x y z w, then moved."""
    length = np.linalg.norm(rotations, axis=1, keepdims=True)
    x, y, z, w = np.where(length > 1e-12, rotations / np.maximum(length, 1e-12), (0.0, 0.0, 0.0, 1.0)).T
    turn = np.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
        ],
        axis=-1,
    )  # fmt: skip
    result = np.tile(np.eye(4), (len(translations), 1, 1))
    result[:, :3, :3] = turn.reshape(-1, 3, 3) * scales[:, None, :]
    result[:, :3, 3] = translations
    return result


def _num_instances(document: Document, node: dict[str, Any]) -> int:
    attributes = _instance_attributes(node)
    counts = {count_of(document, index) for index in attributes.values()}
    if len(counts) > 1:
        raise UnrenderableMesh(f"{_INSTANCING}: attributes of {sorted(counts)} elements")
    return counts.pop() if counts else 1


def instance_matrices(document: Document, placed: PlacedMesh) -> Float[np.ndarray, "K 4 4"]:
    """From the mesh's frame to the scene, for each time that it stands there."""
    attributes = _instance_attributes(placed.node)
    if not attributes:
        return placed.world[None]
    values = [
        read_floats(document, attributes[name])
        if name in attributes
        else np.tile(default, (placed.num_instances, 1))
        for name, default in _INSTANCE_DEFAULTS.items()
    ]
    return placed.world @ matrices(*(np.asarray(value, np.float64) for value in values))


def _instance_attributes(node: dict[str, Any]) -> dict[str, int]:
    attributes = node.get("extensions", {}).get(_INSTANCING, {}).get("attributes", {})
    return {name: attributes[name] for name in _INSTANCE_DEFAULTS if name in attributes}
