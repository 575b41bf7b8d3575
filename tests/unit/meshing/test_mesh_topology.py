"""Edges, components, holes and non-manifold places of meshes."""

import pytest
import torch

from lgm.meshing import Surface
from lgm.meshing.adjacency import HalfEdgeAdjacency, SparseAdjacency
from lgm.meshing.topology import (
    boundary_edges,
    close_holes,
    drop_degenerate,
    is_watertight,
    signed_volume,
    split_non_manifold,
)
from tests.meshes import box, joined, sphere

pytest.importorskip("scipy")


def merged(surface: Surface) -> Surface:
    """Vertices at one place are one."""
    unique, index = surface.vertices.mul(1e5).round().unique(dim=0, return_inverse=True)
    return drop_degenerate(Surface(unique / 1e5, index[surface.faces]))


def test_a_box_is_watertight_until_a_face_is_missing():
    whole = box((1.0, 2.0, 3.0))
    assert is_watertight(whole) and signed_volume(whole) == pytest.approx(6)
    assert not is_watertight(Surface(whole.vertices, whole.faces[1:]))
    assert not is_watertight(Surface(whole.vertices, torch.cat([whole.faces[:1].flip(1), whole.faces[1:]])))


def test_holes_are_closed():
    whole = merged(sphere(0.5, rows=16))
    assert is_watertight(whole)
    keep = torch.ones(whole.num_faces, dtype=torch.bool)
    keep[[5, 100, 101, 300]] = False
    closed = close_holes(Surface(whole.vertices, whole.faces[keep]))
    assert is_watertight(closed)
    assert signed_volume(closed) == pytest.approx(signed_volume(whole), rel=0.01)


@pytest.fixture(params=[SparseAdjacency, HalfEdgeAdjacency])
def adjacency(request):
    return request.param


def test_components_are_counted(adjacency):
    parts = joined(box((1, 1, 1)), box((1, 1, 1), (5, 0, 0)), merged(sphere(0.5, rows=40)))
    order = torch.randperm(len(parts.vertices), generator=torch.Generator().manual_seed(0))
    mixed = Surface(parts.vertices[order], order.argsort()[parts.faces])
    label, count = adjacency(mixed).components()
    assert count == 3 and len(label.unique()) == 3
    assert (label[mixed.faces] == label[mixed.faces[:, :1]]).all()


def test_means_are_of_neighbours(adjacency):
    """A box whose sides are two triangles each: corner 0's neighbours by its faces."""
    whole = box((1.0, 2.0, 3.0))
    means = adjacency(whole).means(whole.vertices)
    for vertex, mean in enumerate(means):
        neighbours = whole.faces[(whole.faces == vertex).any(1)].unique()
        expected = whole.vertices[neighbours[neighbours != vertex]].mean(0)
        torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("offset", [(1.0, 1.0, 0.0), (1.0, 1.0, 1.0)], ids=["edge", "vertex"])
def test_boxes_that_touch_in_an_edge_or_a_vertex_are_taken_apart(offset):
    """Four faces meet in the edge; the pairs that stay together belong to one box each."""
    touching = merged(joined(box((1, 1, 1)), box((1, 1, 1), offset)))
    apart = split_non_manifold(touching)
    assert is_watertight(apart) and SparseAdjacency(apart).components()[1] == 2
    assert apart.num_faces == 24 and signed_volume(apart) == pytest.approx(2)


def test_splitting_leaves_a_manifold_and_an_open_mesh_as_they_are():
    whole = merged(sphere(0.5, rows=8))
    assert len(split_non_manifold(whole).vertices) == len(whole.vertices)
    opened = Surface(whole.vertices, whole.faces[3:])
    after = split_non_manifold(opened)
    assert after.num_faces == opened.num_faces
    assert len(boundary_edges(after.faces)) == len(boundary_edges(opened.faces))
