"""Edges, components, holes and non-manifold places of meshes."""

import pytest
import torch

from lgm.meshing import Surface
from lgm.meshing.topology import (
    boundary_edges,
    close_holes,
    components,
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


def test_components_are_counted():
    label, count = components(joined(box((1, 1, 1)), box((1, 1, 1), (5, 0, 0)), box((1, 1, 1), (9, 0, 0))))
    assert count == 3 and len(label.unique()) == 3


@pytest.mark.parametrize("offset", [(1.0, 1.0, 0.0), (1.0, 1.0, 1.0)], ids=["edge", "vertex"])
def test_boxes_that_touch_in_an_edge_or_a_vertex_are_taken_apart(offset):
    """Four faces meet in the edge; the pairs that stay together belong to one box each."""
    touching = merged(joined(box((1, 1, 1)), box((1, 1, 1), offset)))
    apart = split_non_manifold(touching)
    assert is_watertight(apart) and components(apart)[1] == 2
    assert apart.num_faces == 24 and signed_volume(apart) == pytest.approx(2)


def test_splitting_leaves_a_manifold_and_an_open_mesh_as_they_are():
    whole = merged(sphere(0.5, rows=8))
    assert len(split_non_manifold(whole).vertices) == len(whole.vertices)
    opened = Surface(whole.vertices, whole.faces[3:])
    after = split_non_manifold(opened)
    assert after.num_faces == opened.num_faces
    assert len(boundary_edges(after.faces)) == len(boundary_edges(opened.faces))
