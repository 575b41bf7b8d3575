"""Boolean operations (union, difference, intersection) on closed surfaces, by the package manifold3d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lgm.data.sources.procedural.solids import Solid, unit

_CREASE_DEG = 45.0
_LEAST_LEFT = 0.15  # of the first one's volume


@dataclass(frozen=True)
class Surface:
    """Triangles with normals, and which texture each face has."""

    positions: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    uvs: Float[np.ndarray, "n 2"]
    faces: Int[np.ndarray, "f 3"]
    skins: Int[np.ndarray, " f"]


def require_manifold() -> None:
    """Raise ValueError in one line where manifold3d is missing: without it, the same (seed, index) would be
    another object."""
    if find_spec("manifold3d") is None:
        raise ValueError(
            "procedural objects are cut by manifold3d, which is missing: "
            "pip install 'lgm-training[procedural]'; or give data.booleans=false "
            "(data_tools.procedural: --no-booleans) for a set without cuts"
        )


def combined(operation: str, solids: Sequence[Solid], skins: Sequence[int]) -> Surface | None:
    """The first solid with the others added ("add"), cut away ("subtract") or kept in common ("intersect").

    None where too little would be left, or where a surface crosses itself in a way that has no inside.
    """
    import manifold3d

    parts, skin_of = [], {}
    for solid, skin in zip(solids, skins, strict=True):
        part = _manifold(manifold3d, solid)
        if part is None:
            return None
        skin_of[part.original_id()] = skin
        parts.append(part)
    kind = {
        "add": manifold3d.OpType.Add,
        "subtract": manifold3d.OpType.Subtract,
        "intersect": manifold3d.OpType.Intersect,
    }[operation]
    result = manifold3d.Manifold.batch_boolean(parts, kind)
    if result.is_empty() or result.volume() < _LEAST_LEFT * parts[0].volume():
        return None
    mesh = result.calculate_normals(2, _CREASE_DEG).to_mesh()
    values, faces = np.asarray(mesh.vert_properties), np.asarray(mesh.tri_verts).astype(np.int64)
    run_ends = np.asarray(mesh.run_index) // 3
    skins_of_runs = [skin_of[int(number)] for number in mesh.run_original_id]
    a, b, c = (values[faces[:, k], :3].astype(float) for k in range(3))
    # Slivers where surfaces cross: they have no normal.
    kept = np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-10
    normals = values[:, 5:8].astype(float)
    # What was cut away from has its normals as they were before, inwards; versions differ in which they turn.
    planes = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    sums = [np.bincount(faces.ravel(), planes[:, k], len(values)) for k in range(3)]
    outwards = np.stack(sums, -1)
    inwards = np.einsum("vk,vk->v", normals, outwards) < 0
    normals = np.where(inwards[:, None], -normals, normals)
    return Surface(
        positions=values[:, :3].astype(float),
        normals=unit(np.where(np.linalg.norm(normals, axis=1, keepdims=True) < 0.5, outwards, normals)),
        uvs=values[:, 3:5].astype(float),
        faces=faces[kept],
        skins=np.repeat(skins_of_runs, np.diff(run_ends))[kept],
    )


def _manifold(manifold3d: Any, solid: Solid) -> Any:
    """With texture coordinates as properties; None where the package finds no closed surface."""
    properties = np.concatenate([solid.vertices, solid.uvs], axis=1).astype(np.float32)
    mesh = manifold3d.Mesh(np.ascontiguousarray(properties), np.ascontiguousarray(solid.faces, np.uint32))
    # Vertices at seams are doubled for their texture; merged by position, the surface is closed.
    mesh.merge()
    part = manifold3d.Manifold(mesh)
    if part.status() != manifold3d.Error.NoError or part.is_empty() or part.volume() <= 0:
        return None
    return part.as_original()
