"""From a glTF file to surfaces: every mesh of the scene, where and as it stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.meshes.gltf.document import Document
from data_tools.meshes.gltf.extensions import NotDrawn, add_file, check_required
from data_tools.meshes.gltf.materials import GltfMaterial, Materials
from data_tools.meshes.gltf.nodes import PlacedMesh, instance_matrices, placed_meshes
from data_tools.meshes.gltf.primitives import Triangles, num_triangles, read_triangles, what_is_not_drawn
from data_tools.meshes.gltf.skins import joint_matrices, vertex_matrices
from data_tools.meshes.gltf.textures import TextureUse
from data_tools.meshes.normals import face_normals
from data_tools.meshes.surfaces import Material, Mesh, Surface, UnrenderableMesh
from lgm.errors import first_line


def read_gltf(path: Path, max_triangles: int) -> Mesh:
    """Triangles and materials of the default scene, in the pose of its nodes; raises UnrenderableMesh."""
    try:
        return _Reader(path, max_triangles).mesh()
    except (UnrenderableMesh, MemoryError):
        raise
    except Exception as error:  # a foreign file may hold anything anywhere
        reason = first_line(error)
        if isinstance(error, KeyError):
            reason = f"it lacks {reason!r} where that is needed"
        elif isinstance(error, AttributeError | TypeError):
            reason = f"a value is of another kind than the format has there ({reason})"
        raise UnrenderableMesh(f"unreadable {path.suffix[1:].upper()}: {reason}") from error


class _Reader:
    def __init__(self, path: Path, max_triangles: int) -> None:
        self._document = Document(path)
        check_required(self._document.header)
        self._not_drawn = NotDrawn()
        self._materials = Materials(self._document, self._not_drawn)
        self._max_triangles = max_triangles

    def mesh(self) -> Mesh:
        placed = list(placed_meshes(self._document))
        self._count(placed)
        surfaces = [surface for one in placed for surface in self._surfaces(one)]
        add_file(self._document, self._not_drawn)
        notes = self._document.notes + self._not_drawn.note()
        if not any(surface.num_triangles for surface in surfaces):
            raise UnrenderableMesh("; ".join(["no faces", *notes]))
        return Mesh(surfaces, notes)

    def _count(self, placed: list[PlacedMesh]) -> None:
        """A scene may place one mesh a million times: count before copying."""
        of_mesh: dict[int, int] = {}
        total = 0
        for one in placed:
            index = one.node["mesh"]
            if index not in of_mesh:
                primitives = self._document.entry("meshes", index).get("primitives", [])
                of_mesh[index] = sum(num_triangles(self._document, primitive) for primitive in primitives)
            total += of_mesh[index] * one.num_instances
        if total > self._max_triangles:
            raise UnrenderableMesh(f"{total} triangles, more than --max-triangles {self._max_triangles}")

    def _surfaces(self, placed: PlacedMesh) -> list[Surface]:
        mesh = self._document.entry("meshes", placed.node["mesh"])
        weights = placed.node.get("weights", mesh.get("weights", []))
        joints = None
        if "skin" in placed.node:
            joints = joint_matrices(self._document, placed.node["skin"])
        surfaces = []
        for primitive in mesh.get("primitives", []):
            missing = what_is_not_drawn(primitive)
            if missing is not None:
                self._not_drawn.add(missing)
                continue
            surfaces.append(self._surface(primitive, weights, placed, joints))
        return surfaces

    def _surface(
        self, primitive: dict[str, Any], weights: list[float], placed: PlacedMesh, joints: np.ndarray | None
    ) -> Surface:
        material = self._materials.get(primitive.get("material"))
        names = [
            name
            for name in primitive["attributes"]
            if name in ("POSITION", "NORMAL", "COLOR_0")
            or (joints is not None and name.startswith(("JOINTS_", "WEIGHTS_")))
            or (name.startswith("TEXCOORD_") and name in _coordinate_names(material))
        ]
        triangles = read_triangles(self._document, primitive, names, weights)
        # Of a skinned mesh the joints say where it stands, and its own node says nothing.
        if joints is not None:
            matrices = vertex_matrices(joints, triangles.attributes)[None]
        else:
            matrices = instance_matrices(self._document, placed)[:, None, :3]
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are found, and noted, later
            parts = [_placed_triangles(triangles, matrix) for matrix in matrices]
        positions, normals, orders = (np.concatenate(part) for part in zip(*parts, strict=True))
        corners = triangles.corners
        uv, emission_uv, drawn = self._coordinates(material, triangles.attributes)
        colors = _colors(triangles.attributes.get("COLOR_0"))
        if colors is not None and material.is_blended and colors[:, 3].min(initial=1.0) < 0.98:
            drawn = replace(drawn, alpha_mode="blend")
        if colors is not None and drawn.base_image is not None and _is_mostly_black(colors):
            self._document.notes.append("COLOR_0 is black at most vertices, and so is the texture there")

        def of_corners(values: np.ndarray | None) -> np.ndarray | None:
            """[V, n] to [F, 3, n], repeated for each instance, in the order of each triangle's corners."""
            if values is None:
                return None
            repeated = np.tile(corners, (len(matrices), 1))
            return values[np.take_along_axis(repeated, orders, axis=1)]

        return Surface(
            positions=positions,
            material=drawn,
            normals=normals,
            uv=of_corners(uv),
            emission_uv=of_corners(emission_uv),
            colors=of_corners(colors),
        )

    def _coordinates(
        self, material: GltfMaterial, attributes: dict[str, np.ndarray]
    ) -> tuple[np.ndarray | None, np.ndarray | None, Material]:
        """Texture coordinates of the base image and, where they are others, of the emission's; and the
        material without the textures that have none."""
        drawn, base, emission = material.material, material.base, material.emission
        uv = self._coordinates_of(base, attributes)
        emission_uv = self._coordinates_of(emission, attributes)
        if base is not None and uv is None:
            drawn = replace(drawn, base_image=None)
        if emission is not None and emission_uv is None:
            drawn = replace(drawn, emission_image=None)
        if uv is None:
            return emission_uv, None, drawn
        if emission_uv is None or base.is_placed_like(emission):
            return uv, None, drawn
        return uv, emission_uv, drawn

    def _coordinates_of(self, use: TextureUse | None, attributes: dict[str, np.ndarray]) -> np.ndarray | None:
        if use is None:
            return None
        name = f"TEXCOORD_{use.uv_set}"
        if name not in attributes:
            self._document.notes.append(f"a textured mesh lacks {name}; its material's colour is used")
            return None
        return use.coordinates(attributes[name])


def _coordinate_names(material: GltfMaterial) -> set[str]:
    return {f"TEXCOORD_{use.uv_set}" for use in (material.base, material.emission) if use is not None}


def _colors(values: np.ndarray | None) -> np.ndarray | None:
    """[V, 4], linear."""
    if values is None:
        return None
    values = values.astype(np.float32)
    if values.shape[1] == 3:
        values = np.concatenate([values, np.ones((len(values), 1), np.float32)], axis=1)
    return np.clip(values, 0.0, 1.0)  # NaN stays, to be noted


def _placed_triangles(
    triangles: Triangles, matrices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions and normals [F, 3, 3], and the order of each triangle's corners [F, 3].

    matrices: [V, 3, 4], or [1, 3, 4] for all.
    """
    local = triangles.attributes["POSITION"].astype(np.float64)
    linear, corners = matrices[..., :3], triangles.corners
    # As one product of matrices where it is one matrix, which is many times faster.
    vertices = local @ linear[0].T if len(linear) == 1 else np.einsum("vij,vj->vi", linear, local)
    vertices = vertices + matrices[..., 3]
    # What is mirrored is wound the other way round; its corners are exchanged so that fronts stay fronts.
    is_mirrored = np.linalg.det(linear) < 0
    flipped = np.broadcast_to(is_mirrored, len(local))[corners].sum(axis=1) >= 2
    orders = np.where(flipped[:, None], (0, 2, 1), (0, 1, 2))
    positions = vertices[np.take_along_axis(corners, orders, axis=1)]
    stored = triangles.attributes.get("NORMAL")
    if stored is None:
        return positions, _flat_normals(positions), orders
    # Of cofactors, not of the inverse: a mesh flattened to a sheet has no inverse, and normals none the less.
    cofactors = (
        np.cross(linear[:, [1, 2, 0]], linear[:, [2, 0, 1]]) * np.where(is_mirrored, -1, 1)[:, None, None]
    )
    stored = stored.astype(np.float64)
    normals = stored @ cofactors[0].T if len(cofactors) == 1 else np.einsum("vij,vj->vi", cofactors, stored)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    is_usable = (np.isfinite(length) & (length > 0))[:, 0]
    normals[~is_usable], length[~is_usable] = 0.0, 1.0
    normals = (normals / length).astype(np.float32)
    chosen = np.take_along_axis(corners, orders, axis=1)
    normals = normals[chosen]
    if not is_usable.all():  # where one is zero or no number the face's own stands for it
        normals = np.where(is_usable[chosen][..., None], normals, _flat_normals(positions))
    return positions, normals, orders


def _flat_normals(positions: np.ndarray) -> np.ndarray:
    """Flat normals, which the format demands where a file has none."""
    normals = face_normals(positions)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = (normals / np.where(length > 0, length, 1.0)).astype(np.float32)
    return np.repeat(normals[:, None], 3, axis=1)


def _is_mostly_black(colors: np.ndarray) -> bool:
    """colors: [V, 4] linear. Programs of games keep masks in them, which the format multiplies with."""
    return bool(np.mean(colors[:, :3].max(axis=1) < 0.01) > 0.5)
