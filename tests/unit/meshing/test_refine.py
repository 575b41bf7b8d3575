"""Refinement: a sphere becomes what its Gaussians show, with the topology that it had."""

import pytest
import torch

from lgm.gaussians import Gaussians
from lgm.meshing.refine import RefinementSettings, refine, refinement_cameras
from lgm.meshing.refine_rasterizers import OwnRasterizer, make_rasterizer
from lgm.meshing.regularization import Regularization
from lgm.rendering import TorchRenderer
from lgm.rendering.meshes.projection import pixel_matrices
from tests.mesh_scenes import sphere

SETTINGS = RefinementSettings(
    steps=40, num_views=8, views_per_step=2, size=48, texture_rate=0.1, offset_rate=0.05
)


def ellipsoid() -> Gaussians:
    """Small opaque Gaussians on an ellipsoid, red on one side and green on the other."""
    points = torch.nn.functional.normalize(torch.randn(1, 3000, 3), dim=-1)
    colors = torch.where(points[..., :1] > 0, torch.tensor([0.9, 0.2, 0.1]), torch.tensor([0.1, 0.7, 0.2]))
    quats = torch.tensor([1.0, 0, 0, 0]).expand(1, 3000, 4)
    return Gaussians(
        means=points * torch.tensor([0.5, 0.38, 0.42]),
        quats=quats,
        scales=torch.full((1, 3000, 3), 0.012),
        opacities=torch.full((1, 3000), 0.95),
        colors=colors,
    )


def error(mesh, gaussians) -> float:
    cameras = refinement_cameras(SETTINGS)
    output = TorchRenderer()(gaussians, cameras[None], 48, 48)
    matrices = pixel_matrices(cameras[None], 48, 48)
    drawn = OwnRasterizer(mesh)(mesh.vertices, mesh.texture, matrices, 48)
    white = (drawn[..., :3] + 1 - drawn[..., 3:]).movedim(-1, 1)
    return (white - output.images[0]).square().mean().item()


def test_shape_and_colours_come_nearer_and_the_topology_stays():
    gaussians, start = ellipsoid(), sphere(16, 20, 0.43, texture=32)
    steps = []
    refined = refine(start, gaussians, TorchRenderer(), SETTINGS, on_step=lambda *at: steps.append(at))
    assert error(refined, gaussians) < 0.15 * error(start, gaussians)
    assert torch.equal(refined.faces, start.faces) and torch.equal(refined.uv_faces, start.uv_faces)
    widest, flattest, _ = refined.vertices.abs().amax(0).tolist()
    assert widest > 0.47 and widest > flattest + 0.01  # of 0.51 and 0.39; 0.43 at first
    assert refined.texture.min() >= 0 and refined.texture.max() <= 1
    assert steps[-1] == (40, 40)


def test_the_same_each_time():
    gaussians, start = ellipsoid(), sphere(6, 8, 0.43)
    settings = RefinementSettings(steps=3, num_views=4, views_per_step=2, size=24)
    first, second = (refine(start, gaussians, TorchRenderer(), settings) for _ in range(2))
    assert torch.equal(first.vertices, second.vertices) and torch.equal(first.texture, second.texture)


def test_views_are_from_all_around():
    cameras = refinement_cameras(RefinementSettings(num_views=60))
    inside = (cameras.elevation_deg > -31) & (cameras.elevation_deg < 61)
    assert inside.float().mean() > 0.8
    assert torch.histc(cameras.azimuth_deg, 6, 0, 360).min() >= 8


def test_regularization_is_zero_at_the_start_and_for_translations():
    mesh = sphere(8, 10)
    regularization = Regularization(mesh.surface)
    assert regularization.normal_consistency(mesh.vertices).item() == pytest.approx(0, abs=1e-6)
    assert regularization.laplacian(torch.ones_like(mesh.vertices)).item() == pytest.approx(0, abs=1e-6)
    noisy = mesh.vertices + torch.randn_like(mesh.vertices) * 0.05
    assert regularization.normal_consistency(noisy) > 0.01
    assert regularization.laplacian(noisy - mesh.vertices) > 0.01


def test_without_a_gpu_our_own_rasterizer_is_used():
    assert isinstance(make_rasterizer(sphere(4, 4)), OwnRasterizer)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="steps=0"):
        RefinementSettings(steps=0)
