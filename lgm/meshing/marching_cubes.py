"""Marching cubes (Lorensen and Cline 1987) in PyTorch, on any device, its table made here.

The table is made by tracing: where the surface crosses the square sides of a cube, it leaves directed
segments, which join to closed loops. On a side with two solid corners across from each other, the segments go
around the two corners of air, in both of the cubes that share the side: the surface is closed, and thin
solids stay connected.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# A vertex keeps this distance, in edges, from both ends of its edge: faces of no area have no normals.
_MARGIN = 1e-3
# Corners of a cube are numbered 4 x + 2 y + z.
_STRIDES = (4, 2, 1)
_Edge = tuple[int, int]


def marching_cubes(values: Float[Tensor, "X Y Z"]) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    """The zero level of samples on a grid: vertices in units of samples, and faces that are counter-clockwise
    as seen from where values are positive. Closed where no negative sample lies on the grid's border."""
    cubes, cases = _active(values < 0)
    vertices, index = _crossings(values, cubes, cases)
    _, height, depth = values.shape
    x, y, z = _places(cubes, values)
    # Cubes that begin at the grid's end have edges there, and no faces.
    whole = (x < values.shape[0] - 1) & (y < height - 1) & (z < depth - 1)
    cubes, cases = cubes[whole], cases[whole]
    axes, corners, table = (x.to(values.device) for x in _tables())
    # Each row of the table holds a face's three edges of the cube; faces are padded by -1.
    rows = table[cases]  # [C, T, 3]
    cube, face = (rows[..., 0] >= 0).nonzero(as_tuple=True)
    edge = rows[cube, face]  # [F, 3]
    offset = (corners * corners.new_tensor([height * depth, depth, 1])).sum(-1) + axes * values.numel()
    return vertices, index[offset[edge] + cubes[cube][:, None]].long()


def merged(
    values: Float[Tensor, "X Y Z"], vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]
) -> tuple[Float[Tensor, "W 3"], Int[Tensor, "G 3"]]:
    """Vertices of `marching_cubes` that are nearest to one sample become one, in their mean: fewer faces,
    without the thinnest. The surface stays closed, but an edge may have four faces afterwards.

    Vertices about a sample of what is one sample thick, solid or air, stay: merged, they would pinch it.
    """
    flat, number = values.flatten() < 0, torch.arange(len(vertices), device=values.device)
    steps = (values.shape[1] * values.shape[2], values.shape[2], 1)
    size = vertices.new_tensor(values.shape) - 1
    nearest = (torch.minimum(vertices.round(), size).long() * number.new_tensor(steps)).sum(-1)
    # Which of a sample's six neighbours lie on the other side of the surface, as opposite pairs [3, 2, V].
    other = torch.stack(
        [
            torch.stack([flat[(nearest + step * way).clamp(0, len(flat) - 1)] for way in (1, -1)])
            != flat[nearest]
            for step in steps
        ]
    )
    thin = (other[:, 0] & other[:, 1]).any(0)
    cluster = torch.where(thin, len(flat) + number, nearest)
    _, label = cluster.unique(return_inverse=True)
    count = int(label.max()) + 1 if len(label) else 0
    sums = vertices.new_zeros(count, 4).index_add_(0, label, F.pad(vertices, (0, 1), value=1.0))
    a, b, c = label[faces].unbind(1)
    return sums[:, :3] / sums[:, 3:], label[faces][(a != b) & (b != c) & (c != a)]


def _active(solid: Bool[Tensor, "X Y Z"]) -> tuple[Int[Tensor, " C"], Int[Tensor, " C"]]:
    """Cubes with corners on both sides of the surface: their first corners, as flat indices, and their cases,
    bit i for corner i. At the grid's end the last samples are taken twice."""
    bits = solid.to(torch.uint8)
    for axis, stride in enumerate(_STRIDES):
        size = bits.shape[axis]
        following = torch.arange(1, size + 1, device=bits.device).clamp_max(size - 1)
        # Corner numbers add up over the axes, so bits move by the axis's stride.
        bits = bits | bits.index_select(axis, following) << stride
    # In 8 bits: 0 becomes 1, and 255 becomes 0.
    cubes = (bits + 1 > 1).flatten().nonzero()[:, 0]
    return cubes, bits.flatten()[cubes].long()


def _crossings(
    values: Float[Tensor, "X Y Z"], cubes: Int[Tensor, " C"], cases: Int[Tensor, " C"]
) -> tuple[Float[Tensor, "V 3"], Int[Tensor, " E"]]:
    """A vertex on each edge of the grid that the surface crosses, and its number at axis · X Y Z + the edge's
    first sample; other places of that index hold anything."""
    flat, count = values.flatten(), values.numel()
    steps = [values.shape[1] * values.shape[2], values.shape[2], 1]
    # Not zeros: memory that nothing is written to costs nothing.
    index = torch.empty(3 * count, dtype=torch.int32, device=values.device)
    vertices, done = [], 0
    for axis, stride in enumerate(_STRIDES):
        first = cubes[((cases ^ cases >> stride) & 1).bool()]
        low, high = flat[first], flat[first + steps[axis]]
        position = torch.stack(_places(first, values), -1).to(values.dtype)
        position[:, axis] += (low / (low - high)).clamp_(_MARGIN, 1 - _MARGIN)
        numbers = torch.arange(done, done + len(first), dtype=torch.int32, device=values.device)
        index[axis * count + first] = numbers
        vertices.append(position)
        done += len(first)
    return torch.cat(vertices), index


def _places(flat: Int[Tensor, " C"], values: Float[Tensor, "X Y Z"]) -> tuple[Tensor, Tensor, Tensor]:
    """Flat indices as indices along the three axes."""
    _, height, depth = values.shape
    row = flat // depth
    return row // height, row % height, flat % depth


@cache
def _tables() -> tuple[Int[Tensor, " 12"], Int[Tensor, "12 3"], Int[Tensor, "256 T 3"]]:
    """Each edge's axis and first corner's offset, and each case's faces, as edges."""
    edges = _edges()
    faces = [[face for loop in _loops(case) for face in _fan(loop)] for case in range(256)]
    table = torch.full((256, max(map(len, faces)), 3), -1)
    for case, some in enumerate(faces):
        for row, face in enumerate(some):
            table[case, row] = torch.tensor([edges.index(edge) for edge in face])
    axes = torch.tensor([_STRIDES.index(high - low) for low, high in edges])
    corners = torch.tensor([[low >> 2 & 1, low >> 1 & 1, low & 1] for low, _ in edges])
    return axes, corners, table


def _edges() -> list[_Edge]:
    """A cube's edges, as pairs of corners."""
    return [(corner, corner + stride) for stride in _STRIDES for corner in range(8) if not corner & stride]


def _sides() -> list[list[int]]:
    """The corners of a cube's six sides, counter-clockwise as seen from outside it."""
    sides = []
    for axis, high in product(range(3), (False, True)):
        # The other two axes in an order that makes a right-handed frame with this one.
        u, v = _STRIDES[(axis + 1) % 3], _STRIDES[(axis + 2) % 3]
        ring = [0, u, u + v, v]
        sides.append([corner + _STRIDES[axis] for corner in ring] if high else ring[::-1])
    return sides


def _loops(case: int) -> list[list[_Edge]]:
    """The loops in which the surface crosses a cube, each an ordered list of edges."""
    following = {}
    for side in _sides():
        ring = [*side, *side, side[0]]  # twice around, so that the last crossing has a next one
        crossed = [
            (case >> a & 1, (min(a, b), max(a, b))) for a, b in pairwise(ring) if (case >> a ^ case >> b) & 1
        ]
        # A segment from where the walk around the side leaves the air to where it entered it. The
        # neighbouring side walks along the edge the other way: each crossing begins one segment and ends one.
        for (into_air, entry), (_, exit) in pairwise(crossed):
            if into_air:
                following[exit] = entry
    loops = []
    while following:
        first, edge = following.popitem()
        loop = [first]
        while edge != first:
            loop.append(edge)
            edge = following.pop(edge)
        loops.append(loop)
    return loops


def _fan(loop: list[_Edge]) -> list[tuple[_Edge, _Edge, _Edge]]:
    """A loop as triangles about one of its edges: that with the fewest diagonals in a side of the cube, where
    the next cube could have the same one."""
    turned = [loop[i:] + loop[:i] for i in range(len(loop))]
    best = min(turned, key=lambda ring: sum(_on_one_side(ring[0], other) for other in ring[2:-1]))
    return [(best[0], a, b) for a, b in pairwise(best[1:])]


def _on_one_side(first: _Edge, second: _Edge) -> bool:
    return any({*first, *second} <= set(side) for side in _sides())
