"""Scenes on which the Triton renderer must draw what the torch renderer draws."""

import torch
from torch.nn.functional import normalize

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering import TorchRenderer, TritonRenderer
from tests.parity.test_rasterizer import PARTS

BACKGROUND = (0.2, 0.5, 1.0)


def cloud(scenes, num, scale, opacity=(0.05, 0.95), spread=0.5, seed=0):
    """Packed Gaussians [scenes, num, 14], uniform in a cube."""
    generator = torch.Generator().manual_seed(seed)
    packed = torch.rand(scenes, num, 14, generator=generator)
    packed[..., :3] = (packed[..., :3] - 0.5) * 2 * spread
    packed[..., 3] = opacity[0] + (opacity[1] - opacity[0]) * packed[..., 3]
    packed[..., 4:7] = scale * (0.5 + packed[..., 4:7])
    packed[..., 7:11] = normalize(packed[..., 7:11] - 0.5, dim=-1)
    return packed


def orbit(scenes, views, aspect=1.0, radius=1.5):
    elevation = torch.linspace(-30, 40, views)
    cameras = Cameras.orbit(elevation, torch.linspace(0, 250, views), radius=radius)
    cameras = Cameras.from_fov(cameras.c2w, 49.1, aspect=aspect)
    return Cameras(cameras.c2w.expand(scenes, -1, -1, -1), cameras.K_norm.expand(scenes, -1, -1, -1))


def parallel(scenes, views, aspect=1.0, height=1.6):
    """Orthographic cameras where `orbit` has its own."""
    return Cameras.orthographic(orbit(scenes, views).c2w, height, aspect)


def of_both_projections(scenes, views):
    return Cameras.concatenate([parallel(scenes, views), orbit(scenes, views)], dim=1)


def giant():
    packed = cloud(1, 5, 0.02)
    packed[0, 0, 3:7] = torch.tensor([0.7, 2.0, 2.0, 2.0])
    return packed


SMALL = {
    "no Gaussian": (cloud(1, 0, 0.1), orbit(1, 2), 16, 16),
    "one Gaussian": (cloud(1, 1, 0.1), orbit(1, 1), 24, 24),
    "scenes and views, not square": (cloud(2, 24, 0.06), orbit(2, 2, aspect=40 / 24), 24, 40),
    "a size that no tile divides": (cloud(1, 40, 0.06), orbit(1, 2), 19, 35),
    "one giant over the whole image": (giant(), orbit(1, 2), 40, 40),
    "camera inside the cloud": (cloud(1, 100, 0.05, spread=1.0), orbit(1, 2, radius=0.3), 24, 24),
    "all culled": (cloud(1, 20, 0.01, opacity=(0.0, 1 / 300)), orbit(1, 2), 16, 16),
    "opaque": (cloud(1, 40, 0.2, opacity=(0.97, 1.0)), orbit(1, 1), 16, 32),
    "both projections": (cloud(1, 16, 0.06), of_both_projections(1, 1), 16, 20),
}
LARGE = {
    **SMALL,
    "tens of thousands": (cloud(2, 20_000, 0.01), orbit(2, 4), 128, 128),
    "orthographic": (cloud(2, 24, 0.06), parallel(2, 2, aspect=40 / 24), 24, 40),
    "tens of thousands, both projections": (cloud(2, 20_000, 0.01), of_both_projections(2, 2), 128, 128),
    "two hundred thousand": (cloud(1, 200_000, 0.004), orbit(1, 2), 256, 256),
    "random initialisation": (cloud(1, 16_384, 0.07), orbit(1, 4), 256, 256),
}


def drawn(renderer, packed, cameras, height, width, device="cpu"):
    """All three outputs side by side [B, V, 5, H, W], and the gradient of their weighted sum."""
    leaf = packed.to(device, copy=True).requires_grad_()
    render = renderer(Gaussians.from_packed(leaf), cameras.to(device), height, width, BACKGROUND)
    image = torch.cat([render.images, render.depths, render.alphas], dim=2)
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    (image * weights.to(device)).sum().backward()
    return image.detach().cpu(), leaf.grad.cpu()


def assert_same(ours, expected, rounded=1e-4):
    """But for a share of pixels whose alpha or light lies on a threshold: rounding decides there."""
    error = (ours[0] - expected[0]).abs().amax(dim=2)
    assert error.max() <= 1e-2
    assert (error > 5e-5).float().mean() <= rounded
    for name, part in PARTS.items():
        difference = (ours[1] - expected[1])[..., part].norm()
        assert difference <= 2e-3 * expected[1][..., part].norm() + 1e-7, f"{name}: {difference:.1e}"


def check(name, scenes, device, **options):
    packed, cameras, height, width = scenes[name]
    ours = drawn(TritonRenderer(**options), packed, cameras, height, width, device)
    assert_same(ours, drawn(TorchRenderer(), packed, cameras, height, width, device))
