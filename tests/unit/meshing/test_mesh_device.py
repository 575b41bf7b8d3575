"""Conversion on a device that is not the CPU: nothing is left behind, and the mesh comes out the same."""

import pytest
import torch

from lgm.cameras import Cameras
from lgm.meshing import gaussians_to_mesh, save_mesh
from lgm.meshing.measures import sample_surface
from lgm.meshing.rasterizer import draw
from lgm.meshing.refine import RefinementSettings
from lgm.meshing.topology import is_watertight
from lgm.rendering import TorchRenderer
from tests.meshes import flat_gaussians, sphere
from tests.other_device import other_device

pytest.importorskip("fast_simplification")

COARSE = {"faces": 200, "texture": 64, "resolution": 20, "num_views": 8, "size": 32}
SETTINGS = RefinementSettings(steps=2, num_views=4, views_per_step=2, size=24)


@pytest.fixture(scope="module")
def ball():
    torch.manual_seed(0)
    return flat_gaussians(sphere(0.5), 400)


def test_a_mesh_is_made_where_the_gaussians_are_and_comes_back(ball, monkeypatch):
    # Sums in one order on both devices: a rounded image can turn an edge that is a silhouette by a hair.
    options = {**COARSE, "refine": SETTINGS, "renderer": TorchRenderer(max_pairs=1 << 18)}
    expected = gaussians_to_mesh(ball, **options)
    with other_device(monkeypatch) as device:
        mesh = gaussians_to_mesh(ball.to(device), **options)
    assert type(mesh.vertices) is type(mesh.texture) is torch.Tensor
    # Adam divides by the size of gradients: steps of tiny ones follow their rounding.
    torch.testing.assert_close(mesh.vertices, expected.vertices, rtol=0, atol=2e-3)
    torch.testing.assert_close(mesh.texture, expected.texture, rtol=0, atol=0.02)
    assert torch.equal(mesh.faces, expected.faces)


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_a_mesh_that_stayed_there_is_written_and_measured(suffix, ball, tmp_path, monkeypatch):
    expected = gaussians_to_mesh(ball, **COARSE)
    paths = [tmp_path / folder / f"mesh.{suffix}" for folder in ("cpu", "other")]
    save_mesh(expected, paths[0])
    with other_device(monkeypatch) as device:
        mesh = expected.to(device)
        save_mesh(mesh, paths[1])
        images = draw(mesh, Cameras.orbit([10.0], [20.0]).to(device), 16, 16).images.cpu()
        assert is_watertight(mesh.surface) == is_watertight(expected.surface)
        points = sample_surface(mesh.surface, 10)
    torch.testing.assert_close(images, draw(expected, Cameras.orbit([10.0], [20.0]), 16, 16).images)
    torch.testing.assert_close(points, sample_surface(expected.surface, 10))
    assert paths[0].read_bytes() == paths[1].read_bytes()
