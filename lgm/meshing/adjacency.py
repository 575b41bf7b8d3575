"""The vertex graph of a closed surface: means over neighbours, and connected components.

Each edge of a closed surface has half-edges in both directions, so that half-edges hold all neighbours. Where
an edge has four faces, a neighbour counts twice.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lgm.meshing.mesh import Surface
from lgm.meshing.packages import required


class Adjacency(Protocol):
    """What either of the two classes below gives."""

    def means(self, x: Float[Tensor, "V K"]) -> Float[Tensor, "V K"]:
        """Of each vertex's neighbours."""
        ...

    def components(self) -> tuple[Int[Tensor, " V"], int]:
        """The number of each vertex's connected component, and how many there are."""
        ...


class SparseAdjacency:
    """By scipy's sparse matrices, on a CPU."""

    def __init__(self, surface: Surface) -> None:
        sparse = required("scipy.sparse", "scipy")
        count, faces = len(surface.vertices), surface.faces.numpy().astype(np.int32)
        start, end = faces.T.ravel(), faces[:, [1, 2, 0]].T.ravel()
        graph = sparse.coo_array((np.ones(len(start), np.float32), (start, end)), (count, count))
        # Half-edges that stand twice are not looked for, which takes longest; both count.
        graph.has_canonical_format = True
        self._graph: Any = graph.tocsr()
        degrees = torch.from_numpy(np.diff(self._graph.indptr))
        self._scale = 1 / degrees.clamp_min(1).float()[:, None]

    def means(self, x: Float[Tensor, "V K"]) -> Float[Tensor, "V K"]:
        """Of each vertex's neighbours."""
        return torch.from_numpy(self._graph @ x.numpy()).mul_(self._scale)

    def components(self) -> tuple[Int[Tensor, " V"], int]:
        """The number of each vertex's connected component, and how many there are."""
        csgraph = required("scipy.sparse.csgraph", "scipy")
        number, label = csgraph.connected_components(self._graph, directed=False)
        return torch.from_numpy(label.astype(np.int64)), int(number)


class HalfEdgeAdjacency:
    """By scattered sums and minima over half-edges, on any device: fast on a GPU."""

    def __init__(self, surface: Surface) -> None:
        faces = surface.faces
        self._start, self._end = faces.T.flatten(), faces[:, [1, 2, 0]].T.flatten()
        self._count = len(surface.vertices)
        ones = surface.vertices.new_ones(len(self._start))
        degrees = surface.vertices.new_zeros(self._count).index_add_(0, self._start, ones)
        self._scale = 1 / degrees.clamp_min_(1)[:, None]

    def means(self, x: Float[Tensor, "V K"]) -> Float[Tensor, "V K"]:
        """Of each vertex's neighbours."""
        return torch.zeros_like(x).index_add_(0, self._start, x.index_select(0, self._end)).mul_(self._scale)

    def components(self) -> tuple[Int[Tensor, " V"], int]:
        """The number of each vertex's connected component, and how many there are.

        Labels fall to the lowest vertex of a component: each round hooks trees onto lower neighbours and
        halves their height (Shiloach and Vishkin 1982): few rounds for large components.
        """
        label = torch.arange(self._count, device=self._start.device)
        while True:
            lowest = label.scatter_reduce(0, self._start, label[self._end], "amin")
            # Roots follow their vertices, and vertices the roots.
            lowest.scatter_reduce_(0, label, lowest.clone(), "amin")
            lowest = lowest[lowest]
            if torch.equal(lowest, label):
                break
            label = lowest
        roots, label = label.unique(return_inverse=True)
        return label, len(roots)


def make_adjacency(surface: Surface) -> Adjacency:
    """The fastest one for the surface's device."""
    return (SparseAdjacency if surface.vertices.device.type == "cpu" else HalfEdgeAdjacency)(surface)
