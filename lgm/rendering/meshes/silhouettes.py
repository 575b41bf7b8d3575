"""Which silhouette edges lie between neighbouring pixels, in plain PyTorch.

Unlike nvdiffrast, which looks at the nearer pixel's own face, the line between two pixels' centres is
followed over the faces that it crosses: on a curved surface the last faces before a silhouette are narrower
than a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lgm.rendering.meshes.projection import NEAR, project
from lgm.rendering.meshes.visibility import FACE_BITS, face_ids_of

# Faces that the line between two pixels' centres is followed over.
# A bound for the loop; a line of one pixel rarely crosses more.
MAX_STEPS = 8


@dataclass(frozen=True)
class _Pairs:
    """P neighbouring pixels of different faces.

    image: which. axis: 0 where they are side by side, 1 where one is above the other.
    one: flat index of the left or upper pixel. is_second: whether the other one's face is nearer.
    center, face: of the pixel whose face is nearer.
    """

    image: Int[Tensor, " P"]
    axis: Int[Tensor, " P"]
    one: Int[Tensor, " P"]
    is_second: Bool[Tensor, " P"]
    center: Float[Tensor, "P 2"]
    face: Int[Tensor, " P"]

    def __getitem__(self, index: Tensor) -> _Pairs:
        fields = (self.image, self.axis, self.one, self.is_second, self.center, self.face)
        return _Pairs(*(x[index] for x in fields))


@torch.no_grad()
def silhouette_codes(
    keys: Int[Tensor, "I H W"],
    vertices: Float[Tensor, "A 3"],
    faces: Int[Tensor, "F 3"],
    matrices: Float[Tensor, "I R 4"],
    adjacent: Int[Tensor, "F 3"],
) -> Int[Tensor, "2 I H W"]:
    """The silhouette edge between each pixel and the one right of it ([0]) and below it ([1]).

    6 · face + 2 · edge, and 1 more where the second pixel's face is the nearer one; -1 where there is none.

    keys: of the nearest faces, as of `visibility.nearest_faces`. adjacent: as of `adjacent_faces`.

    The line from the near pixel's centre to the far one's leaves each face over one edge. It is followed
    until that edge is a silhouette, whose other face is turned away or missing, or the far centre is reached.
    """
    codes = keys.new_full((2, keys.numel()), -1, dtype=torch.int32)
    pairs = _find_pairs(keys)
    face = pairs.face
    for _ in range(MAX_STEPS):
        if not len(face):
            break
        corners = faces[face]
        is_forward = ~pairs.is_second
        views = matrices[pairs.image]
        along, across, points, valid = as_seen(vertices, corners, views, pairs.center, pairs.axis, is_forward)
        leaving, is_steep, position = _last_crossing(along, across, pairs.axis)
        usable = valid & (position >= 0) & (position <= 1)
        other = adjacent[face].gather(1, leaving[:, None])[:, 0]
        other_points, other_valid = as_seen(
            vertices, faces[other.clamp_min(0)], views, pairs.center, pairs.axis, is_forward
        )[2:]
        # One face is seen from the front, its neighbour from behind.
        turned = (_area(points) > 0) != (_area(other_points) > 0)
        is_silhouette = (other < 0) | (turned & other_valid)
        ends = usable & is_silhouette & is_steep
        code = 6 * face + 2 * leaving + pairs.is_second.long()
        codes[pairs.axis[ends], pairs.one[ends]] = code[ends].int()
        goes_on = usable & ~is_silhouette & other_valid
        pairs, face = pairs[goes_on], other[goes_on]
    return codes.view(2, *keys.shape)


def as_seen(
    vertices: Float[Tensor, "A 3"],
    corners: Int[Tensor, "P K"],
    matrices: Float[Tensor, "P R 4"],
    center: Float[Tensor, "P 2"],
    axis: Int[Tensor, " P"],
    is_forward: Bool[Tensor, " P"],
) -> tuple[Float[Tensor, "P K"], Float[Tensor, "P K"], Float[Tensor, "P K 2"], Bool[Tensor, " P"]]:
    """Vertices as seen from a pixel's centre: towards its neighbour along `axis`, across that direction, and
    as points; and whether all of a row lie before the camera.

    matrices: of each row's image. is_forward: whether the neighbour is the right or the lower one.
    """
    # Not `vertices[corners]`, whose gradients a GPU adds up after sorting all indices.
    rows = vertices.index_select(0, corners.flatten()).view(*corners.shape, 3)
    X, Y, w, z = project(matrices[:, None], rows)
    before = z > NEAR
    safe = torch.where(before, w, 1.0)
    points = torch.stack([X / safe, Y / safe], -1) - center[:, None]
    is_upright = (axis == 1)[:, None]
    along = torch.where(is_upright, points[..., 1], points[..., 0])
    across = torch.where(is_upright, points[..., 0], points[..., 1])
    direction = torch.where(is_forward, 1.0, -1.0)[:, None]
    return along * direction, across, points, before.all(-1)


def _find_pairs(keys: Int[Tensor, "I H W"]) -> _Pairs:
    height, width = keys.shape[1:]
    face_ids, depth_bits = face_ids_of(keys).flatten(), (keys >> FACE_BITS).flatten()
    index = torch.arange(keys.numel(), device=keys.device).view_as(keys)
    sides = ((index[:, :, :-1], index[:, :, 1:]), (index[:, :-1], index[:, 1:]))
    pairs = []
    for axis, (one, other) in enumerate(sides):
        differ = face_ids[one] != face_ids[other]
        one, other = one[differ], other[differ]
        pairs.append((torch.full_like(one, axis), one, other))
    axis, one, other = (torch.cat(kind) for kind in zip(*pairs, strict=True))
    # Bits of positive depths are ordered as they are, and where there is no face they are the largest.
    is_second = depth_bits[other] < depth_bits[one]
    near = torch.where(is_second, other, one)
    center = torch.stack([near % width, near // width % height], -1) + 0.5  # [P, 2]
    return _Pairs(one // (height * width), axis, one, is_second, center, face_ids[near])


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
