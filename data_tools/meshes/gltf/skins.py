"""Skins: where a vertex lies, and how its normal is turned, in the pose of the nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from data_tools.meshes.gltf.accessors import read_floats
from data_tools.meshes.gltf.document import Document
from data_tools.meshes.gltf.nodes import world_matrices
from data_tools.meshes.surfaces import UnrenderableMesh


def joint_matrices(document: Document, skin_index: Any) -> Float[np.ndarray, "J 4 4"]:
    """For each joint, from the mesh's own frame to the scene."""
    skin = document.entry("skins", skin_index)
    joints = skin.get("joints", [])
    for joint in joints:
        document.entry("nodes", joint)
    if not joints:
        raise UnrenderableMesh(f"skins[{skin_index}] has no joints")
    world = world_matrices(document, joints)
    if "inverseBindMatrices" not in skin:
        return world
    inverse = read_floats(document, skin["inverseBindMatrices"]).astype(np.float64)
    if inverse.shape[1] != 16 or len(inverse) < len(joints):
        raise UnrenderableMesh(
            f"skins[{skin_index}] has {len(inverse)} inverseBindMatrices for {len(joints)} joints"
        )
    return world @ inverse[: len(joints)].reshape(-1, 4, 4).transpose(0, 2, 1)  # stored column by column


def vertex_matrices(
    joints: Float[np.ndarray, "J 4 4"], attributes: dict[str, np.ndarray]
) -> Float[np.ndarray, "V 3 4"]:
    """For each vertex the weighted mean of its joints' matrices, of all the sets JOINTS_n, WEIGHTS_n.

    Raises UnrenderableMesh for a joint that the skin lacks.
    """
    total = np.zeros((len(attributes["POSITION"]), 3, 4))
    weight_sum = np.zeros(len(total))
    first = None
    for name in sorted(attributes):
        if (
            not name.startswith("JOINTS_")
            or (weights_name := name.replace("JOINTS", "WEIGHTS")) not in attributes
        ):
            continue
        indices, weights = attributes[name].astype(np.int64), attributes[weights_name].astype(np.float64)
        _check(indices, weights, len(joints))
        first = indices[:, 0] if first is None else first
        for k in range(indices.shape[1]):
            total += weights[:, k, None, None] * joints[indices[:, k], :3]
            weight_sum += weights[:, k]
    if first is None:
        raise UnrenderableMesh("a skinned mesh lacks JOINTS_0 or WEIGHTS_0")
    # Weights of bytes do not quite add up to 1; a vertex without any follows its first joint.
    held = np.abs(weight_sum) > 1e-6
    total[held] /= weight_sum[held, None, None]
    total[~held] = joints[first[~held], :3]
    return total


def _check(indices: Int[np.ndarray, "V 4"], weights: np.ndarray, num_joints: int) -> None:
    used = indices[weights != 0] if indices.shape == weights.shape else indices
    if used.size and (used.min() < 0 or used.max() >= num_joints):
        raise UnrenderableMesh(f"a vertex names joint {used.max()} of {num_joints}")
    np.clip(indices, 0, num_joints - 1, out=indices)
