"""Meshes of flat Gaussians on known surfaces, thin parts included: how near they come to the truth."""

import math

import pytest
import torch

pytest.importorskip("fast_simplification")

from lgm.meshing import Surface, gaussians_to_mesh
from lgm.meshing.measures import sample_surface, surface_distance
from lgm.meshing.topology import is_watertight
from tests.meshes import box, flat_gaussians, joined, revolved, sphere


def chair() -> Surface:
    """A thin seat on four bars of 3 % of its height, and a back of three more."""
    legs = [box((0.03, 0.44, 0.03), (x, -0.27, z)) for x in (-0.2, 0.2) for z in (-0.2, 0.2)]
    posts = [box((0.03, 0.5, 0.03), (x, 0.23, -0.2)) for x in (-0.2, 0.0, 0.2)]
    return joined(box((0.46, 0.03, 0.46), (0, -0.035, 0)), *legs, *posts)


def table() -> Surface:
    legs = [box((0.04, 0.5, 0.04), (x, -0.27, z)) for x in (-0.45, 0.45) for z in (-0.25, 0.25)]
    return joined(box((1.0, 0.04, 0.6)), *legs)


def ladder() -> Surface:
    rails = [box((0.04, 1.0, 0.04), (x, 0, 0)) for x in (-0.15, 0.15)]
    return joined(*rails, *[box((0.26, 0.025, 0.025), (0, -0.4 + 0.16 * i, 0)) for i in range(6)])


def frame() -> Surface:
    """The edges of a cube."""
    bars = []
    for axis in range(3):
        for i in (-0.3, 0.3):
            for j in (-0.3, 0.3):
                size, center = [0.03] * 3, [i, i, j]
                size[axis], center[axis] = 0.57, 0.0
                center[(axis + 1) % 3], center[(axis + 2) % 3] = i, j
                bars.append(box(tuple(size), tuple(center)))
    return joined(*bars)


def torus() -> Surface:
    angles = [2 * math.pi * i / 24 for i in range(25)]
    return revolved([(0.4 - 0.1 * math.cos(a), -0.1 * math.sin(a)) for a in angles], 64)


def cup() -> Surface:
    """Open at the top, with a wall of 3 % of its height."""
    outside = [(0.0, -0.4), (0.3, -0.4), (0.35, 0.4)]
    return revolved([*outside, (0.32, 0.4), (0.272, -0.36), (0.0, -0.36)], 64)


def plate() -> Surface:
    return revolved([(0.0, -0.02), (0.3, -0.02), (0.5, 0.05), (0.49, 0.07), (0.29, 0.0), (0.0, 0.0)], 64)


def bottle() -> Surface:
    profile = [(0.0, -0.5), (0.16, -0.5), (0.16, 0.1), (0.05, 0.28), (0.05, 0.45), (0.03, 0.45), (0.0, 0.45)]
    return revolved(profile, 48)


def planets() -> Surface:
    """Separate parts."""
    places = ((0.3, (0, 0, 0)), (0.12, (0.45, 0.2, 0)), (0.08, (-0.4, -0.2, 0.2)))
    return joined(*[sphere(r, 24, c) for r, c in places])


def sheet() -> Surface:
    """A board of 2 % of its width."""
    return box((1.0, 0.7, 0.02))


OBJECTS = [chair, table, ladder, frame, torus, cup, plate, bottle, planets, sheet]


@pytest.mark.slow
@pytest.mark.parametrize("make", OBJECTS, ids=lambda make: make.__name__)
def test_f_score_of_65536_flat_gaussians(make, record_property):
    truth = make()
    mesh = gaussians_to_mesh(flat_gaussians(truth, 65_536))
    distance = surface_distance(mesh.surface, sample_surface(truth))
    record_property("f_score", distance.f_score)
    assert distance.f_score >= 0.96, distance
    assert mesh.num_faces <= 20_000 and is_watertight(mesh.surface)


def test_a_small_mesh_is_near_the_truth():
    truth = torus()
    mesh = gaussians_to_mesh(flat_gaussians(truth, 6_000), 3_000, 64, resolution=96, num_views=30, size=160)
    distance = surface_distance(mesh.surface, sample_surface(truth))
    assert distance.f_score > 0.93 and distance.chamfer < 0.009


def test_the_measure_itself():
    ball = sphere(0.5)
    points = sample_surface(ball)
    assert torch.equal(points, sample_surface(ball)) and (points.norm(dim=-1) - 0.5).abs().max() < 0.003
    same = surface_distance(ball, points)
    assert same.f_score == 1 and same.chamfer < 1e-3
    larger = surface_distance(sphere(0.52), points)
    assert larger.chamfer == pytest.approx(0.02, abs=2e-3) and larger.f_score < 0.01
    half = surface_distance(ball, points[points[:, 1] > 0])
    assert half.recall == 1 and half.precision == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="0 points"):
        surface_distance(ball, points[:0])
