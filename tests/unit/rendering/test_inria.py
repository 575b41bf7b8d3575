"""What the published rasterizer is handed, and what a machine without it is told. Its images: tests/gpu."""

import sys
import types
from typing import Any, NamedTuple

import pytest
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering import InriaRenderer, TorchRenderer, inria_backend
from tests.triton_scenes import BACKGROUND, SMALL, drawn

SCENE = SMALL["scenes and views, not square"]


class _Settings(NamedTuple):
    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: torch.Tensor
    scale_modifier: float
    viewmatrix: torch.Tensor
    projmatrix: torch.Tensor
    sh_degree: int
    campos: torch.Tensor
    prefiltered: bool
    debug: bool


class _Rasterizer:
    """In its own conventions, drawn by the reference; the lens is read off the projection matrix."""

    def __init__(self, raster_settings: _Settings) -> None:
        self.settings = raster_settings

    def __call__(self, means3D: Any, means2D: Any, opacities: Any, colors_precomp: Any, scales: Any,
                 rotations: Any) -> tuple:  # fmt: skip
        settings = self.settings
        w2c = settings.viewmatrix.T
        clip = settings.projmatrix.T @ torch.linalg.inv(w2c)
        torch.testing.assert_close(clip[3], torch.tensor([0.0, 0, 1, 0]), atol=1e-5, rtol=0)
        torch.testing.assert_close(float(clip[0, 0]), 1 / settings.tanfovx, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(float(clip[1, 1]), 1 / settings.tanfovy, atol=1e-4, rtol=1e-4)
        c2w = torch.linalg.inv(w2c)
        torch.testing.assert_close(settings.campos, c2w[:3, 3], atol=1e-5, rtol=0)
        K_norm = torch.eye(3)
        K_norm[0, 0], K_norm[0, 2] = clip[0, 0] / 2, (clip[0, 2] + 1) / 2
        K_norm[1, 1], K_norm[1, 2] = clip[1, 1] / 2, (clip[1, 2] + 1) / 2
        parts = (means3D, rotations, scales, opacities[:, 0], colors_precomp)
        render = TorchRenderer()(
            Gaussians(*(part[None] for part in parts)),
            Cameras(c2w[None, None], K_norm[None, None]),
            settings.image_height,
            settings.image_width,
            settings.bg,
        )
        return render.images[0, 0], None, render.depths[0, 0], render.alphas[0, 0]


@pytest.fixture
def package(monkeypatch):
    module = types.ModuleType("diff_gaussian_rasterization")
    module.GaussianRasterizationSettings, module.GaussianRasterizer = _Settings, _Rasterizer
    monkeypatch.setitem(sys.modules, "diff_gaussian_rasterization", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(inria_backend, "DEVICE_TYPE", "cpu")
    return module


def test_images_and_gradients_come_back_in_our_layout(package):
    packed, cameras, height, width = SCENE
    off_centre = cameras.K_norm.clone()
    off_centre[..., 0, 2] += 0.1
    cameras = Cameras(cameras.c2w, off_centre)
    ours = drawn(InriaRenderer(), packed, cameras, height, width)
    expected = drawn(TorchRenderer(), packed, cameras, height, width)
    torch.testing.assert_close(ours[0], expected[0], atol=2e-4, rtol=2e-3)
    torch.testing.assert_close(ours[1], expected[1], atol=2e-3, rtol=2e-3)


def test_one_background_a_image(package):
    packed, cameras, height, width = SCENE
    colors = torch.rand(2, 2, 3)
    ours = InriaRenderer()(Gaussians.from_packed(packed), cameras, height, width, colors).images
    expected = TorchRenderer()(Gaussians.from_packed(packed), cameras, height, width, colors).images
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=2e-3)


def test_inrias_own_version_is_refused(package, monkeypatch):
    monkeypatch.setattr(package, "GaussianRasterizer", lambda settings: lambda **inputs: (None, None))
    packed, cameras, height, width = SCENE
    with pytest.raises(ValueError, match="draws no depth and alpha; take the fork"):
        InriaRenderer()(Gaussians.from_packed(packed), cameras, height, width, BACKGROUND)


def test_a_machine_without_it_gets_one_line(monkeypatch):
    with pytest.raises(ValueError, match="torch sees none here; choose renderer=torch"):  # noqa: PT012
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        InriaRenderer()
    with pytest.raises(ValueError, match=r"is not installed .research and evaluation only.: pip install"):  # noqa: PT012
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        InriaRenderer()
