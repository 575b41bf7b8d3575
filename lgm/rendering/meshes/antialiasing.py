"""Analytic antialiasing of silhouettes, which makes coverage differentiable (Laine et al. 2020, nvdiffrast).

A silhouette edge between two neighbouring pixels crosses the line that joins their centres. The colours of
the two are mixed there by the fraction that the nearer surface covers; that fraction moves with the edge's
vertices, and so the colours do. Which edges these are says `silhouettes`, without gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lgm.rendering.meshes.silhouettes import as_seen


def adjacent_faces(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "F 3"]:
    """The face on the other side of edges (0, 1), (1, 2) and (2, 0) of each face.

    -1 for edges of one face or of more than two.
    """
    edges = torch.stack([faces, faces.roll(-1, 1)], -1).flatten(0, 1)  # [3 * F, 2]
    face_ids = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    _, edge_ids, counts = edges.sort(-1).values.unique(dim=0, return_inverse=True, return_counts=True)
    # The sum of an edge's two faces less one of them is the other: no search.
    totals = torch.zeros_like(counts).index_add_(0, edge_ids, face_ids)
    return torch.where(counts[edge_ids] == 2, totals[edge_ids] - face_ids, -1).view(-1, 3)


@dataclass(frozen=True)
class _Silhouettes:
    """P pairs of neighbouring pixels that a silhouette edge lies between.

    image: which. axis: 0 where they are side by side, 1 where one is above the other.
    near, far: flat indices of the pixel with the nearer face and of the other one.
    edges: the edge's vertices.
    """

    image: Int[Tensor, " P"]
    axis: Int[Tensor, " P"]
    near: Int[Tensor, " P"]
    far: Int[Tensor, " P"]
    edges: Int[Tensor, "P 2"]


def antialias(
    colors: Float[Tensor, "I H W C"],
    codes: Int[Tensor, "2 I H W"],
    vertices: Float[Tensor, "A 3"],
    faces: Int[Tensor, "F 3"],
    matrices: Float[Tensor, "I R 4"],
) -> Float[Tensor, "I H W C"]:
    """Colours whose silhouettes are antialiased; differentiable in colours and vertices.

    codes: of these images' silhouettes, as of `silhouettes.silhouette_codes`.
    """
    if not len(faces):
        return colors
    height, width = codes.shape[2:]
    pairs = _decoded(codes, faces)
    center = torch.stack([pairs.near % width, pairs.near // width % height], -1) + 0.5  # [P, 2]
    is_forward = pairs.far > pairs.near
    # Once more, with gradients: the search is discrete and only selects edges.
    along, across = as_seen(
        vertices, pairs.edges, matrices.index_select(0, pairs.image), center, pairs.axis, is_forward
    )[:2]
    slope = (along[:, 1] - along[:, 0]) / (across[:, 1] - across[:, 0])
    crossing = (along[:, 0] - across[:, 0] * slope).clamp(0, 1)
    # The face ends before the border of the two pixels: the far one's colour reaches into the near pixel.
    is_short = crossing < 0.5
    target = torch.where(is_short, pairs.near, pairs.far)
    source = torch.where(is_short, pairs.far, pairs.near)
    flat = colors.flatten(0, 2)
    difference = flat.index_select(0, source) - flat.index_select(0, target)
    changes = (crossing - 0.5).abs()[:, None] * difference
    return flat.index_add(0, target, changes).view_as(colors)


def _decoded(codes: Int[Tensor, "2 I H W"], faces: Int[Tensor, "F 3"]) -> _Silhouettes:
    height, width = codes.shape[2:]
    axis, one = (codes.flatten(1) >= 0).nonzero(as_tuple=True)
    code = codes.flatten(1)[axis, one].long()
    other = one + torch.where(axis == 0, 1, width)
    is_second = code % 2 == 1
    near, far = torch.where(is_second, other, one), torch.where(is_second, one, other)
    face, leaving = code // 6, code // 2 % 3
    edge = torch.stack([leaving, (leaving + 1) % 3], 1)
    return _Silhouettes(one // (height * width), axis, near, far, faces[face].gather(1, edge))
