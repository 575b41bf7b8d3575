"""Analytic antialiasing of silhouettes, which makes coverage differentiable (Laine et al. 2020, nvdiffrast).

A silhouette edge between two neighbouring pixels crosses the line that joins their centres. The colours of
the two are mixed there by the fraction that the nearer surface covers; that fraction moves with the edge's
vertices, and so the colours do. Unlike nvdiffrast, which looks at the nearer pixel's own face, the line is
followed over its neighbours: on a curved surface the last faces before a silhouette are narrower than a
pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lgm.rendering.meshes.projection import NEAR, project

# Faces that the line between two pixels' centres is followed over.
# A bound for the loop; a line of one pixel rarely crosses more.
_MAX_STEPS = 8


def adjacent_faces(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "F 3"]:
    """The face on the other side of edges (0, 1), (1, 2) and (2, 0) of each face.

    -1 for edges of one face or of more than two.
    """
    edges = torch.stack([faces, faces.roll(-1, 1)], -1).flatten(0, 1)  # [3 * F, 2]
    own = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    _, edge_ids, counts = edges.sort(-1).values.unique(dim=0, return_inverse=True, return_counts=True)
    # The sum of an edge's two faces less one of them is the other: no search.
    totals = torch.zeros_like(counts).index_add_(0, edge_ids, own)
    return torch.where(counts[edge_ids] == 2, totals[edge_ids] - own, -1).view(-1, 3)


@dataclass(frozen=True)
class _Pairs:
    """P neighbouring pixels of different faces: images, axis (0: side by side, 1: one above the other),
    indices of the pixel with the nearer face and of the other one, the nearer one's centre and face."""

    image: Int[Tensor, " P"]
    axis: Int[Tensor, " P"]
    near: Int[Tensor, " P"]
    far: Int[Tensor, " P"]
    center: Float[Tensor, "P 2"]
    face: Int[Tensor, " P"]

    def __getitem__(self, index: Tensor) -> _Pairs:
        fields = (self.image, self.axis, self.near, self.far, self.center, self.face)
        return _Pairs(*(x[index] for x in fields))


def antialias(
    colors: Float[Tensor, "I H W C"],
    face_ids: Int[Tensor, "I H W"],
    depths: Float[Tensor, "I H W"],
    vertices: Float[Tensor, "A 3"],
    faces: Int[Tensor, "F 3"],
    matrices: Float[Tensor, "I R 4"],
    adjacent: Int[Tensor, "F 3"],
) -> Float[Tensor, "I H W C"]:
    """Colours whose silhouettes are antialiased; differentiable in colours and vertices.

    depths: of the nearest faces; only compared. adjacent: `adjacent_faces(faces)`.
    """
    if not len(faces):
        return colors
    with torch.no_grad():
        pairs = _find_pairs(face_ids, depths)
        kept, edges = _silhouettes(pairs, vertices, faces, matrices, adjacent)
    pairs = pairs[kept]
    # Once more, with gradients: the search above is discrete and only selects edges.
    along, across = _offsets(pairs, edges, vertices, matrices)[:2]
    slope = (along[:, 1] - along[:, 0]) / (across[:, 1] - across[:, 0])
    crossing = (along[:, 0] - across[:, 0] * slope).clamp(0, 1)
    # The face ends before the border of the two pixels: the far one's colour reaches into the near pixel.
    is_short = crossing < 0.5
    target, source = (
        torch.where(is_short, pairs.near, pairs.far),
        torch.where(is_short, pairs.far, pairs.near),
    )
    flat = colors.flatten(0, 2)
    changes = (crossing - 0.5).abs()[:, None] * (flat[source] - flat[target])
    return flat.index_add(0, target, changes).view_as(colors)


def _find_pairs(face_ids: Int[Tensor, "I H W"], depths: Float[Tensor, "I H W"]) -> _Pairs:
    height, width = face_ids.shape[1:]
    ids = face_ids.flatten()
    depths = torch.where(face_ids >= 0, depths, float("inf")).flatten()
    index = torch.arange(len(ids), device=ids.device).view_as(face_ids)
    sides = ((index[:, :, :-1], index[:, :, 1:]), (index[:, :-1], index[:, 1:]))
    pairs = []
    for axis, (one, other) in enumerate(sides):
        differ = face_ids.flatten()[one] != face_ids.flatten()[other]
        one, other = one[differ], other[differ]
        is_near = depths[one] <= depths[other]
        near, far = torch.where(is_near, one, other), torch.where(is_near, other, one)
        pairs.append((torch.full_like(near, axis), near, far))
    axis, near, far = (torch.cat(kind) for kind in zip(*pairs, strict=True))
    center = torch.stack([near % width, near // width % height], -1) + 0.5  # [K, 2]
    return _Pairs(near // (height * width), axis, near, far, center, ids[near])


def _silhouettes(
    pairs: _Pairs, vertices: Tensor, faces: Tensor, matrices: Tensor, adjacent: Tensor
) -> tuple[Int[Tensor, " K"], Int[Tensor, "K 2"]]:
    """Pairs of pixels with a silhouette edge between them, and that edge's two vertices.

    The line from the near pixel's centre to the far one's leaves each face over one edge. It is followed
    until that edge is a silhouette, whose other face is turned away or missing, or the far centre is reached.
    """
    left = torch.arange(len(pairs.face), device=faces.device)
    face = pairs.face
    kept, edges = [], []
    for _ in range(_MAX_STEPS):
        here = pairs[left]
        corners = faces[face]
        along, across, points, valid = _offsets(here, corners, vertices, matrices)
        leaving, is_steep, position = _last_crossing(along, across, here.axis)
        usable = valid & (position >= 0) & (position <= 1)
        other = adjacent[face].gather(1, leaving[:, None])[:, 0]
        other_points, other_valid = _offsets(here, faces[other.clamp_min(0)], vertices, matrices)[2:]
        # One face is seen from the front, its neighbour from behind.
        turned = (_area(points) > 0) != (_area(other_points) > 0)
        is_silhouette = (other < 0) | (turned & other_valid)
        ends = usable & is_silhouette & is_steep
        kept.append(left[ends])
        edge = torch.stack([leaving, (leaving + 1) % 3], 1)
        edges.append(corners.gather(1, edge)[ends])
        goes_on = usable & ~is_silhouette & other_valid
        left, face = left[goes_on], other[goes_on]
    return torch.cat(kept), torch.cat(edges)


def _offsets(pairs: _Pairs, corners: Int[Tensor, "P K"], vertices: Tensor, matrices: Tensor) -> tuple:
    """Vertices [P, K] as seen from the near centre: towards the far one, across that direction, and as points
    [P, K, 2]; and whether all of a face lie before the camera."""
    X, Y, w, z = project(matrices[pairs.image][:, None], vertices[corners])
    before = z > NEAR
    safe = torch.where(before, w, 1.0)
    points = torch.stack([X / safe, Y / safe], -1) - pairs.center[:, None]
    is_upright = (pairs.axis == 1)[:, None]
    along = torch.where(is_upright, points[..., 1], points[..., 0])
    across = torch.where(is_upright, points[..., 0], points[..., 1])
    direction = torch.where(pairs.far > pairs.near, 1.0, -1.0)[:, None]
    return along * direction, across, points, before.all(-1)


def _last_crossing(
    along: Float[Tensor, "P 3"], across: Float[Tensor, "P 3"], axis: Int[Tensor, " P"]
) -> tuple[Int[Tensor, " P"], Bool[Tensor, " P"], Float[Tensor, " P"]]:
    """The edge over which the line leaves a face, whether it is to be antialiased along this axis, and where
    it is crossed: 0 at the near centre, 1 at the far one; -inf if nowhere."""
    rise, run = across.roll(-1, 1) - across, along.roll(-1, 1) - along
    meets = (across <= 0) != (across.roll(-1, 1) <= 0)
    positions = along - across * run / torch.where(meets, rise, 1.0)
    position, leaving = torch.where(meets, positions, -float("inf")).max(1)
    # Steep edges between pixels side by side, the others between pixels above each other.
    steepness = (rise.abs() - run.abs()).gather(1, leaving[:, None])[:, 0]
    return leaving, torch.where(axis == 0, steepness >= 0, steepness > 0), position


def _area(points: Float[Tensor, "P 3 2"]) -> Float[Tensor, " P"]:
    """Twice the signed area of faces in the image."""
    a, b = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
