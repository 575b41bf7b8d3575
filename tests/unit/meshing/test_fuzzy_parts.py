"""Thin and blurred parts, on which no two depth maps agree, become solid where all views show them."""

import pytest
import torch

from lgm.gaussians import Gaussians
from lgm.meshing import Surface, gaussians_to_mesh
from lgm.meshing.density import optical_depth
from lgm.meshing.topology import is_watertight
from tests.meshes import flat_gaussians, sphere

pytest.importorskip("fast_simplification")

SMALL = {"faces": 2000, "texture": 64, "resolution": 96, "num_views": 30, "size": 128}


def cloud(means: torch.Tensor, scale: float, opacity: float) -> Gaussians:
    """Round Gaussians of one size."""
    count = len(means)
    return Gaussians(
        means=means[None],
        quats=torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4),
        scales=torch.full((1, count, 3), scale),
        opacities=torch.full((1, count), opacity),
        colors=torch.full((1, count, 3), 0.3),
    )


def test_a_blurred_bar_beside_a_solid_ball_is_whole():
    """Of Gaussians that are faint each, as networks make of a fork's tines."""
    bar = torch.zeros(400, 3)
    bar[:, 0] = torch.linspace(0.2, 0.6, 400)
    bar[:, 1:] = 0.012 * torch.randn(400, 2)
    parts = [flat_gaussians(sphere(0.25, center=(-0.2, 0.0, 0.0)), 3000), cloud(bar, 0.012, 0.12)]
    mesh = gaussians_to_mesh(Gaussians.from_packed(torch.cat([part.packed() for part in parts], 1)), **SMALL)
    along = mesh.vertices[mesh.vertices[:, 0] > 0.15]
    assert torch.histc(along[:, 0], 8, 0.2, 0.58).min() > 0
    assert along[:, 1:].norm(dim=-1).max() < 0.08 and is_watertight(mesh.surface)


def test_optical_depth_is_that_of_the_formula():
    gaussians = cloud(torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.05, 0.0]]), 0.1, 0.6)
    origin = torch.tensor([-0.5, -0.5, -0.5])
    depth, spacing = optical_depth(gaussians, origin, 0.05, (21, 21, 21))
    index = torch.cartesian_prod(*[torch.arange(21)] * 3)
    points = origin + index * spacing
    alpha = 0.6 * (-0.5 * ((points[:, None] - gaussians.means[0]) / 0.1).square().sum(-1)).exp()
    expected = -torch.log1p(-alpha).sum(-1)
    near = alpha.amin(-1) > 0.05
    assert near.sum() > 50 and spacing == 0.05
    torch.testing.assert_close(depth.flatten()[near], expected[near], rtol=1e-4, atol=1e-5)


def test_flat_gaussians_make_no_cloud():
    depth, _ = optical_depth(flat_gaussians(sphere(0.5), 2000), torch.full((3,), -0.6), 0.02, (61, 61, 61))
    assert depth.max() == 0


def test_a_scene_that_would_take_too_long_gets_a_coarser_grid(monkeypatch):
    monkeypatch.setattr("lgm.meshing.density._MOST_EVALUATIONS", 1e5)
    gaussians = cloud(torch.rand(500, 3) - 0.5, 0.05, 0.9)
    depth, spacing = optical_depth(gaussians, torch.full((3,), -0.6), 0.01, (120, 120, 120))
    assert spacing > 0.01 and depth.shape[0] == round(120 * 0.01 / spacing) and depth.max() > 0


def test_an_open_sheet_of_one_layer_has_two_sides():
    corners = torch.tensor([[-0.5, 0.0, -0.4], [0.5, 0.0, -0.4], [0.5, 0.0, 0.4], [-0.5, 0.0, 0.4]])
    square = Surface(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    mesh = gaussians_to_mesh(flat_gaussians(square, 4000), **SMALL)
    size = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    assert size[0] == pytest.approx(1.0, abs=0.06) and size[2] == pytest.approx(0.8, abs=0.06)
    assert size[1] < 0.08 and is_watertight(mesh.surface)


def no_object(count: int = 3000) -> Gaussians:
    """Of all sizes and opacities everywhere, one as large as all, a few far away."""
    points = torch.rand(count, 3) * torch.tensor([8.0, 2.0, 8.0])
    points[:3] *= 1000
    scales = torch.exp(torch.randn(1, count, 3) - 3)
    scales[0, 5] = 10.0
    return Gaussians(
        means=points[None],
        quats=torch.nn.functional.normalize(torch.randn(1, count, 4), dim=-1),
        scales=scales,
        opacities=torch.rand(1, count),
        colors=torch.rand(1, count, 3),
    )


def test_a_scene_that_is_no_object_becomes_some_mesh_or_a_line():
    options = {**SMALL, "num_views": 12, "size": 64, "resolution": 48}
    meshes = []
    for seed in range(6):
        torch.manual_seed(seed)
        try:
            meshes.append(gaussians_to_mesh(no_object(), **options))
        except ValueError as error:
            assert "enclose no solid part" in str(error)  # noqa: PT017
    assert any(mesh.num_faces > 100 for mesh in meshes)
    for mesh in meshes:
        assert 4 <= mesh.num_faces <= 2000
        assert mesh.vertices.isfinite().all() and mesh.texture.isfinite().all()


def test_one_gaussian_larger_than_all_leaves_the_grid_as_it_is():
    gaussians = cloud(torch.tensor([[0.0, 0.0, 0.0], [30.0, 0.0, 0.0]]), 0.05, 0.9)
    gaussians.scales[0, 1] = 100.0
    depth, spacing = optical_depth(gaussians, torch.full((3,), -0.6), 0.02, (61, 61, 61))
    assert spacing == 0.02 and depth.min() > 1.9 and depth.argmax() == 30 * 61 * 61 + 30 * 61 + 30
