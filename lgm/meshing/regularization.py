"""Regularization of vertex offsets: Laplacian smoothness and normal consistency."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from lgm.meshing.mesh import Surface


class Regularization:
    """Penalties of a mesh of fixed topology against the mesh that it was.

    Lengths are divided by the mean edge, so that weights hold at any scale and number of faces.
    """

    def __init__(self, surface: Surface) -> None:
        self.faces = surface.faces
        edges = torch.cat([surface.faces[:, [i, j]] for i, j in ((0, 1), (1, 2), (2, 0))])
        self.edges = edges.sort(-1).values.unique(dim=0)  # [E, 2]
        lengths = (surface.vertices[self.edges[:, 0]] - surface.vertices[self.edges[:, 1]]).norm(dim=-1)
        self.mean_edge = lengths.mean().clamp_min(1e-9)
        ones = lengths.new_ones(len(self.edges))
        self.degrees = lengths.new_zeros(len(surface.vertices))
        for column in self.edges.T:
            self.degrees = self.degrees.index_add(0, column, ones)
        self.face_pairs = _face_pairs(surface.faces)
        self.initial = self._cosines(surface.vertices).detach()

    def laplacian(self, offsets: Float[Tensor, "V 3"]) -> Float[Tensor, ""]:
        """Mean squared difference of each vertex's offset and the mean of its neighbours'.

        Of offsets and not of positions: what the surface has of corners is kept.
        """
        first, second = self.edges.T
        # Not `offsets[second]`, whose gradients a GPU adds up after sorting all indices.
        sums = torch.zeros_like(offsets).index_add(0, first, offsets.index_select(0, second))
        sums = sums.index_add(0, second, offsets.index_select(0, first))
        difference = offsets - sums / self.degrees.clamp_min(1)[:, None]
        return difference.square().sum(-1).mean() / self.mean_edge**2

    def normal_consistency(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, ""]:
        """How much more the normals of adjacent faces differ than they did at first."""
        return (self.initial - self._cosines(vertices)).clamp_min(0).mean()

    def _cosines(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, " P"]:
        a, b, c = vertices.index_select(0, self.faces.flatten()).view(-1, 3, 3).unbind(1)
        normals = normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-20)
        first, second = (normals.index_select(0, face) for face in self.face_pairs.T)
        return (first * second).sum(-1)


def _face_pairs(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "P 2"]:
    """Faces that share an edge, each pair once."""
    from lgm.rendering.meshes.antialiasing import adjacent_faces

    other = adjacent_faces(faces).flatten()
    face_ids = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    return torch.stack([face_ids, other], 1)[other > face_ids]
