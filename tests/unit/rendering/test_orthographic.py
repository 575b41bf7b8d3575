"""Gaussians from orthographic cameras: known places, gradients, the limit of a camera far away."""

import math

import pytest
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering import InriaRenderer, TorchRenderer
from lgm.rendering.gsplat_backend import _camera_model
from lgm.rendering.projection import project
from tests.triton_scenes import cloud, of_both_projections, orbit, parallel

FIELDS = ("images", "alphas", "depths")


def test_a_known_ball_at_a_known_place():
    """Two balls, one behind the other's plane: as large, and as far from the middle as they are."""
    gaussians = Gaussians(
        means=torch.tensor([[[0.4, 0.2, 0.5], [-0.4, -0.2, -0.5]]]),
        quats=torch.tensor([[[1.0, 0, 0, 0]] * 2]),
        scales=torch.full((1, 2, 3), 0.05),
        opacities=torch.full((1, 2), 0.9),
        colors=torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]),
    )
    front = Cameras.orthographic(Cameras.orbit([0.0], [0.0]).c2w[None], 2.0)
    splats = project(gaussians, front, 40, 40)  # 20 pixels are 1
    torch.testing.assert_close(splats.x[0, 0], torch.tensor([27.5, 11.5]))
    torch.testing.assert_close(splats.y[0, 0], torch.tensor([15.5, 23.5]))  # +y is up: fewer rows
    torch.testing.assert_close(splats.cov_xx[0, 0], torch.full((2,), 1.0 + 0.3))
    torch.testing.assert_close(splats.depths[0, 0], torch.tensor([1.0, 2.0]))
    render = TorchRenderer()(gaussians, front, 40, 40, (0, 0, 0)).images[0, 0]
    assert render[0, :20, 20:].sum() > 0.99 * render[0].sum()  # red above and right
    assert render[1, 20:, :20].sum() > 0.99 * render[1].sum()
    torch.testing.assert_close(render[0].sum(), render[1].sum(), rtol=1e-4, atol=0)


def far_away(cameras, height, distance):
    """Perspective cameras on the same axes that see as much where the world's origin lies."""
    c2w = cameras.c2w.clone()
    u, _, v = torch.linalg.svd(c2w[..., :3, :3])  # a rotation to the last digit: its error is multiplied
    c2w[..., :3, :3] = u @ v
    c2w[..., :3, 3] -= (distance - 1.5) * c2w[..., :3, 2]
    return Cameras.from_fov(c2w, math.degrees(2 * math.atan(height / 2 / distance)))


def test_the_limit_of_a_narrow_camera_far_away():
    """Images, coverage and gradients."""
    packed, ours = cloud(1, 30, 0.05).double(), parallel(1, 3).to(torch.float64)
    results = []
    for cameras in (ours, far_away(ours, 1.6, distance=1e5)):
        leaf = packed.clone().requires_grad_()
        render = TorchRenderer()(Gaussians.from_packed(leaf), cameras, 24, 24, (0.2, 0.5, 1.0))
        weights = torch.randn(render.images.shape, generator=torch.Generator().manual_seed(0)).double()
        (render.images * weights).sum().backward()
        results.append((render.images.detach(), render.alphas.detach(), leaf.grad))
    for mine, expected in zip(*results, strict=True):
        error = (mine - expected).abs() / expected.abs().max()
        assert error.max() < 2e-2  # alphas that lie on the threshold of 1/255 may be seen by one alone
        assert (error > 1e-4).double().mean() < 5e-3


@pytest.mark.parametrize("cameras", [parallel(1, 2), of_both_projections(1, 1)], ids=["all", "mixed"])
def test_gradients_are_finite_differences(cameras):
    """Far from the thresholds at which they jump: a few half-transparent Gaussians beyond the image."""
    packed = cloud(1, 4, 1.2, opacity=(0.3, 0.6), spread=0.3).double()
    cameras = cameras.to(torch.float64)
    weights = torch.randn(1, 2, 5, 9, 9, generator=torch.Generator().manual_seed(0)).double()

    def value(packed):
        render = TorchRenderer()(Gaussians.from_packed(packed), cameras, 9, 9, (0.2, 0.5, 1.0))
        return (torch.cat([render.images, render.depths, render.alphas], dim=2) * weights).sum()

    leaf = packed.clone().requires_grad_()
    value(leaf).backward()
    step = 1e-6
    for n in range(4):
        for k in range(14):
            shift = torch.zeros_like(packed)
            shift[0, n, k] = step
            difference = (value(packed + shift) - value(packed - shift)) / (2 * step)
            torch.testing.assert_close(leaf.grad[0, n, k], difference, atol=1e-5, rtol=1e-4)


def test_along_its_axis_only_depth_changes():
    packed, cameras = cloud(1, 10, 0.05), parallel(1, 1)
    leaf = packed.clone().requires_grad_()
    TorchRenderer()(Gaussians.from_packed(leaf), cameras, 24, 24).images.square().sum().backward()
    axis = cameras.c2w[0, 0, :3, 2]
    along = (leaf.grad[0, :, :3] * axis).sum(-1).abs().max()
    assert along < 1e-5 * leaf.grad[0, :, :3].norm(dim=-1).max()
    before = TorchRenderer()(Gaussians.from_packed(packed), cameras, 24, 24)
    packed[..., :3] += 0.25 * axis
    after = TorchRenderer()(Gaussians.from_packed(packed), cameras, 24, 24)
    torch.testing.assert_close(after.images, before.images, atol=2e-5, rtol=0)
    torch.testing.assert_close(after.depths, before.depths + 0.25 * before.alphas, atol=2e-4, rtol=0)


def test_flags_that_say_perspective_change_nothing():
    gaussians, cameras = Gaussians.from_packed(cloud(1, 30, 0.05)), orbit(1, 2)
    flagged = Cameras(cameras.c2w, cameras.K_norm, torch.zeros(1, 2, dtype=torch.bool))
    ours, expected = (TorchRenderer()(gaussians, x, 24, 24) for x in (flagged, cameras))
    for name in FIELDS:
        assert torch.equal(getattr(ours, name), getattr(expected, name))


def test_backends_that_cannot_draw_them_say_so_in_one_line(monkeypatch):
    assert _camera_model(orbit(1, 2)) == "pinhole" and _camera_model(parallel(1, 2)) == "ortho"
    with pytest.raises(ValueError, match="gsplat draws cameras of one projection a call") as caught:
        _camera_model(of_both_projections(1, 1))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(InriaRenderer, "__init__", lambda self: None)
    monkeypatch.setattr(InriaRenderer, "draws_on", classmethod(lambda cls, device_type: True))
    for cameras in (parallel(1, 2), of_both_projections(1, 1)):
        with pytest.raises(ValueError, match="published rasterizer draws perspective cameras") as caught:
            InriaRenderer()(Gaussians.from_packed(cloud(1, 3, 0.1)), cameras, 8, 8)
        assert "\n" not in str(caught.value)
