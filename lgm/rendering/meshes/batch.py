"""A batch of meshes of different sizes, packed one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class MeshBatch:
    """M triangle meshes, their faces grouped by mesh.

    vertices: positions in the world.
    faces: indices into `vertices`; counter-clockwise as seen from outside.
    faces_per_mesh: on the host, so that nothing waits for the device to learn a size.
    uvs: texture coordinates; (0, 0) is the upper left corner of a texture's first pixel, (1, 1) the lower
        right corner of its last one. `uv_faces` are indices into them, of the same corners as `faces`.
    textures: rgb, interpolated bilinearly; beyond the border its nearest texel.
    """

    vertices: Float[Tensor, "A 3"]
    faces: Int[Tensor, "F 3"]
    faces_per_mesh: tuple[int, ...]
    uvs: Float[Tensor, "T 2"]
    uv_faces: Int[Tensor, "F 3"]
    textures: Float[Tensor, "M H W 3"]

    def __post_init__(self) -> None:
        if sum(self.faces_per_mesh) != len(self.faces):
            raise ValueError(
                f"faces_per_mesh sums to {sum(self.faces_per_mesh)}, and there are {len(self.faces)} faces"
            )
        if self.uv_faces.shape != self.faces.shape:
            raise ValueError(
                f"uv_faces has shape {list(self.uv_faces.shape)}, expected {list(self.faces.shape)}, "
                "the shape of faces"
            )
        if len(self.textures) != self.num_meshes or 0 in self.textures.shape[1:]:
            raise ValueError(
                f"textures has shape {list(self.textures.shape)}, expected [{self.num_meshes}, H, W, 3] with "
                "at least one texel"
            )

    @classmethod
    def pack(cls, meshes: Sequence[Any]) -> MeshBatch:
        """Of meshes with `vertices`, `faces`, `uvs`, `uv_faces` and `texture`, as `lgm.meshing.Mesh` has.

        Raises ValueError in one line for none, and for textures of different sizes.
        """
        if not meshes:
            raise ValueError("MeshBatch.pack was given 0 meshes; give at least one")
        sizes = {tuple(mesh.texture.shape) for mesh in meshes}
        if len(sizes) > 1:
            raise ValueError(f"textures of one batch have sizes {sorted(sizes)}; resize them to one")
        return cls(
            vertices=torch.cat([mesh.vertices for mesh in meshes]),
            faces=_joined([mesh.faces for mesh in meshes], [len(mesh.vertices) for mesh in meshes]),
            faces_per_mesh=tuple(len(mesh.faces) for mesh in meshes),
            uvs=torch.cat([mesh.uvs for mesh in meshes]),
            uv_faces=_joined([mesh.uv_faces for mesh in meshes], [len(mesh.uvs) for mesh in meshes]),
            textures=torch.stack([mesh.texture for mesh in meshes]),
        )

    @property
    def num_meshes(self) -> int:
        """M, the number of meshes in the batch."""
        return len(self.faces_per_mesh)

    @property
    def device(self) -> torch.device:
        """The device of the vertices, and so of all tensors."""
        return self.vertices.device

    @property
    def first_faces(self) -> tuple[int, ...]:
        """The index of each mesh's first face, and the number of all faces."""
        firsts = [0]
        for number in self.faces_per_mesh:
            firsts.append(firsts[-1] + number)
        return tuple(firsts)

    def to(self, *args: Any, **kwargs: Any) -> MeshBatch:
        """On another device, or with another float type; indices keep theirs."""
        vertices = self.vertices.to(*args, **kwargs)
        return MeshBatch(
            vertices=vertices,
            faces=self.faces.to(vertices.device),
            faces_per_mesh=self.faces_per_mesh,
            uvs=self.uvs.to(*args, **kwargs),
            uv_faces=self.uv_faces.to(vertices.device),
            textures=self.textures.to(*args, **kwargs),
        )


def _joined(faces: list[Tensor], num_vertices: list[int]) -> Tensor:
    """Faces of meshes one after the other, into their vertices one after the other."""
    first, moved = 0, []
    for some, number in zip(faces, num_vertices, strict=True):
        moved.append(some + first)
        first += number
    return torch.cat(moved)
