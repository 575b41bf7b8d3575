"""Connectivity of triangle meshes: edges, holes, whether a mesh is watertight."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lgm.meshing.mesh import Surface
from lgm.meshing.packages import required


def vertex_normals(surface: Surface) -> Float[Tensor, "V 3"]:
    """Unit normals, the mean of adjacent faces' by area."""
    a, b, c = surface.corners.unbind(1)
    normals = torch.linalg.cross(b - a, c - a).repeat_interleave(3, 0)
    summed = torch.zeros_like(surface.vertices).index_add_(0, surface.faces.flatten(), normals)
    return torch.nn.functional.normalize(summed, dim=-1)


def signed_volume(surface: Surface) -> float:
    """The volume that a closed surface encloses; negative where its faces look inward."""
    a, b, c = surface.corners.double().unbind(1)
    # Signed tetrahedra with the origin: the divergence theorem.
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def is_watertight(surface: Surface) -> bool:
    """Whether each edge belongs to two faces, which run along it in opposite directions."""
    edges = _directed_edges(surface.faces)
    if not len(edges):
        return False
    # Each directed edge once, and its reverse once: closed, manifold in its edges, consistently oriented.
    forward, reverse = _codes(edges), _codes(edges.flip(1))
    return len(forward.unique()) == len(forward) and torch.equal(forward.sort().values, reverse.sort().values)


def boundary_edges(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "E 2"]:
    """Directed edges that no face runs along the other way."""
    edges = _directed_edges(faces)
    return edges[~torch.isin(_codes(edges), _codes(edges.flip(1)))]


def drop_degenerate(surface: Surface) -> Surface:
    """Without faces that have a vertex twice, faces that stand twice, and the pairs of opposite faces that a
    collapse leaves behind where a part became flat."""
    faces = surface.faces
    a, b, c = faces.unbind(1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    if not len(faces):
        return Surface(surface.vertices, faces)
    # Opposite faces have the same vertices in another order; both of a pair go.
    key = np.sort(faces.numpy(), 1)
    order = np.lexsort(key.T)  # ten times as fast as unique rows
    new = np.r_[True, (key[order[1:]] != key[order[:-1]]).any(1), True]
    single = np.empty(len(faces), bool)
    single[order] = new[:-1] & new[1:]
    return Surface(surface.vertices, faces[torch.from_numpy(single)])


def manifold(surface: Surface, rounds: int = 8) -> Surface:
    """The surface without edges of more than two faces. Sheets that touch are taken apart; an edge at which
    that fails, because other faces join them at both of its ends, is collapsed."""
    for _ in range(rounds):
        surface = split_non_manifold(surface)
        codes, counts = _codes(_directed_edges(surface.faces)).unique(return_counts=True)
        bad = codes[counts > 1]
        if not len(bad):
            break
        bad = torch.stack([bad >> 32, bad & 0xFFFFFFFF], 1)
        onto = torch.arange(len(surface.vertices))
        # Edge collapse: the higher vertex is replaced by the lower one.
        onto[bad.amax(1)] = bad.amin(1)
        surface = drop_degenerate(Surface(surface.vertices, onto[surface.faces]))
    return surface


def split_non_manifold(surface: Surface) -> Surface:
    """The same faces, with vertices doubled so that no edge has more than two: where more meet, sheets that
    only touch are taken apart, and each pair of faces with the solid between them stays together."""
    faces = surface.faces
    half = _directed_edges(faces)  # half-edge i of face i % F, from its corner i // F to the next
    forward = _codes(half).numpy()
    low, high = half.amin(1), half.amax(1)
    # Half-edges of one undirected edge stand beside each other, of one direction first.
    order = np.lexsort((forward, (low << 32 | high).numpy()))
    key = (low << 32 | high).numpy()[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    counts = np.diff(np.r_[starts, len(key)])
    simple = starts[counts == 2]
    pairs = np.stack([order[simple], order[simple + 1]], -1)
    pairs = pairs[forward[pairs[:, 0]] != forward[pairs[:, 1]]]
    several = [
        _paired_by_angle(surface, half, order[start : start + count])
        for start, count in zip(starts[counts > 2], counts[counts > 2], strict=True)
    ]
    pairs = np.concatenate([pairs, *several])
    return _rejoined(surface, pairs)


def _paired_by_angle(surface: Surface, half: Int[Tensor, "E 2"], edges: np.ndarray) -> np.ndarray:
    """Half-edges on one edge in pairs of opposite direction, neighbours by their faces' angles about it."""
    count = surface.num_faces
    start, end = half[edges[0]].sort().values
    axis = torch.nn.functional.normalize(surface.vertices[end] - surface.vertices[start], dim=0).double()
    other = surface.faces[torch.from_numpy(edges % count), torch.from_numpy(edges // count + 2) % 3]
    offset = surface.vertices[other].double() - surface.vertices[start].double()
    offset = offset - (offset @ axis)[:, None] * axis
    side = torch.linalg.cross(axis, offset[0])
    # Dihedral angles about the edge, from the first face's.
    angle = torch.atan2(offset @ side, offset @ offset[0]).numpy()
    around = edges[np.argsort(-angle, kind="stable")]
    is_forward = (half[around, 0] == start).numpy()
    pairs: list[tuple[int, int]] = []
    paired: set[int] = set()
    waiting: list[int] = []
    # Twice around, as brackets: a face along the edge opens a wedge of solid, one against it closes it.
    for edge, opens in [*zip(around.tolist(), is_forward.tolist(), strict=True)] * 2:
        if edge in paired or edge in waiting:
            continue
        if opens:
            waiting.append(edge)
        elif waiting:
            pairs.append((waiting.pop(), edge))
            paired.update(pairs[-1])
    return np.array(pairs, np.int64).reshape(-1, 2)


def _rejoined(surface: Surface, pairs: np.ndarray) -> Surface:
    """Vertices anew: corners of faces are one where paired half-edges join them."""
    sparse = required("scipy.sparse", "scipy")
    csgraph = required("scipy.sparse.csgraph", "scipy")
    count = surface.num_faces
    # Half-edge i starts at corner i and ends at the next corner of its face, (i + F) mod 3F.
    start, end = pairs, (pairs + count) % (3 * count)
    i = np.concatenate([start[:, 0], end[:, 0]])
    j = np.concatenate([end[:, 1], start[:, 1]])
    graph = sparse.coo_matrix((np.ones(len(i), np.int8), (i, j)), (3 * count, 3 * count))
    number, label = csgraph.connected_components(graph, directed=False)
    source = np.zeros(number, np.int64)
    source[label] = surface.faces.T.reshape(-1).numpy()
    faces = torch.from_numpy(label.astype(np.int64)).view(3, -1).T.contiguous()
    return Surface(surface.vertices[torch.from_numpy(source)], faces)


def close_holes(surface: Surface, max_edges: int = 200) -> Surface:
    """Close boundary loops of up to `max_edges` edges with a fan about their centres."""
    loops = [loop for loop in _loops(boundary_edges(surface.faces).tolist()) if len(loop) <= max_edges]
    if not loops:
        return surface
    vertices, faces = [surface.vertices], [surface.faces]
    count = len(surface.vertices)
    for loop in loops:
        ring = torch.tensor(loop)
        following = ring.roll(-1)
        if len(loop) == 3:
            faces.append(ring.flip(0)[None])
            continue
        # A fan about the loop's centroid.
        vertices.append(surface.vertices[ring].mean(0, keepdim=True))
        faces.append(torch.stack([following, ring, torch.full_like(ring, count)], 1))
        count += 1
    return Surface(torch.cat(vertices), torch.cat(faces))


def _loops(edges: list[list[int]]) -> list[list[int]]:
    """Closed loops of boundary edges; where several meet in a vertex, each is followed as it comes."""
    onward: dict[int, list[int]] = {}
    for start, end in edges:
        onward.setdefault(start, []).append(end)
    loops = []
    for first in list(onward):
        while onward.get(first):
            loop, at = [first], onward[first].pop()
            seen = {first: 0}
            while at not in seen and onward.get(at):
                seen[at] = len(loop)
                loop.append(at)
                at = onward[at].pop()
            if at in seen:
                loop = loop[seen[at] :]
                if len(loop) >= 3:
                    loops.append(loop)
    return loops


def _directed_edges(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "E 2"]:
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _codes(edges: Int[Tensor, "E 2"]) -> Int[Tensor, " E"]:
    """One number for each pair of vertices, in order."""
    return edges[:, 0] << 32 | edges[:, 1]
