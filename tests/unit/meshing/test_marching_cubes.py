"""Marching cubes: closed and oriented surfaces of any signs, where the samples say."""

import math

import pytest
import torch
import torch.nn.functional as F

from lgm.meshing import Surface
from lgm.meshing.adjacency import make_adjacency
from lgm.meshing.marching_cubes import marching_cubes, merged
from lgm.meshing.topology import boundary_edges, is_watertight, manifold, signed_volume

pytest.importorskip("scipy")


def surface_of(values: torch.Tensor) -> Surface:
    return Surface(*marching_cubes(values))


def test_a_ball_has_its_place_and_volume():
    center = torch.tensor([9.6, 11.2, 8.3])
    grid = torch.cartesian_prod(torch.arange(20), torch.arange(22), torch.arange(18))
    surface = surface_of(((grid - center).norm(dim=-1) - 7).view(20, 22, 18))
    assert ((surface.vertices - center).norm(dim=-1) - 7).abs().max() < 0.05
    assert is_watertight(surface)
    assert signed_volume(surface) == pytest.approx(4 / 3 * math.pi * 7**3, rel=0.02)  # faces look outward


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_any_signs_give_a_closed_surface(density):
    """All 256 cases beside each other, ambiguous ones among them."""
    torch.manual_seed(0)
    values = torch.where(torch.rand(24, 20, 22) < density, -1.0, 1.0) * torch.rand(24, 20, 22)
    assert is_watertight(surface_of(F.pad(values, [1] * 6, value=1.0)))


def test_the_whole_grid_is_between_solid_and_air():
    values = torch.ones(3, 3, 3)
    assert surface_of(values).num_faces == 0 and surface_of(-values).num_faces == 0


def test_solids_that_touch_along_a_diagonal_are_one():
    """Of the two surfaces that such signs allow, the one in which thin parts do not fall apart."""
    values = torch.ones(4, 4, 3)
    values[1, 1, 1] = values[2, 2, 1] = -1
    surface = surface_of(values)
    assert is_watertight(surface) and make_adjacency(surface).components()[1] == 1


def test_the_same_surface_as_scikit_image():
    measure = pytest.importorskip("skimage.measure")
    torch.manual_seed(0)
    values = F.interpolate(torch.randn(1, 1, 5, 5, 5), size=(24, 24, 24), mode="trilinear")[0, 0]
    surface = surface_of(F.pad(values, [1] * 6, value=1.0))
    vertices, faces, _, _ = measure.marching_cubes(F.pad(values, [1] * 6, value=1.0).numpy(), 0.0)
    theirs = Surface(torch.from_numpy(vertices.copy()), torch.from_numpy(faces.astype("int64")))
    assert surface.num_faces == pytest.approx(theirs.num_faces, rel=0.01)
    assert signed_volume(surface) == pytest.approx(signed_volume(theirs), rel=1e-3)


def test_merged_vertices_are_fewer_on_the_same_closed_surface():
    torch.manual_seed(0)
    values = F.interpolate(torch.randn(1, 1, 5, 5, 5), size=(40, 40, 40), mode="trilinear")[0, 0]
    values = F.pad(values, [1] * 6, value=1.0)
    fine = surface_of(values)
    coarse = Surface(*merged(values, fine.vertices, fine.faces))
    assert coarse.num_faces < 0.75 * fine.num_faces
    assert not len(boundary_edges(coarse.faces)) and is_watertight(manifold(coarse))
    assert signed_volume(coarse) == pytest.approx(signed_volume(fine), rel=0.01)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 8), (1, 8, 8)], ids=["speck", "bar", "sheet"])
def test_what_is_one_sample_thick_is_not_pinched_off(size):
    values = torch.ones(11, 11, 11)
    values[tuple(slice(2, 2 + n) for n in size)] = -1
    fine = surface_of(values)
    coarse = Surface(*merged(values, fine.vertices, fine.faces))
    assert is_watertight(coarse)
    assert signed_volume(coarse) > 0.7 * signed_volume(fine)
