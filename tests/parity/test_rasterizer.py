"""The torch renderer against the published rasterizer's numbers, and against a dense evaluation."""

import pytest
import torch
from einops import rearrange

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering import TorchRenderer
from lgm.rendering.projection import project
from tests.golden_files import read_golden

PARTS = {"means": slice(0, 3), "opacities": slice(3, 4), "scales": slice(4, 7), "quats": slice(7, 11)}
PARTS["colors"] = slice(11, 14)
KINDS = ["single", "object", "init", "edge"]


def _load(kind):
    golden, settings = read_golden(f"raster_{kind}")
    height, width = int(settings["height"]), int(settings["width"])
    cameras = Cameras.from_fov(golden["c2w_opencv"], float(settings["fovy_deg"]), aspect=width / height)
    return golden, cameras, height, width


def _without_radial_part(grad, packed):
    """The network normalises quaternions, which removes the gradient along them."""
    quats, grad = packed[..., PARTS["quats"]], grad.clone()
    radial = (grad[..., PARTS["quats"]] * quats).sum(-1, keepdim=True)
    grad[..., PARTS["quats"]] -= radial * quats / quats.square().sum(-1, keepdim=True)
    return grad


def _assert_images_agree(ours, theirs, tolerance):
    """Within the tolerance, but for 1 pixel in 10,000 on the other side of a threshold."""
    error = (ours - theirs).abs().amax(dim=2)
    assert error.max() <= 1e-2
    assert (error > tolerance).float().mean() <= 1e-4


def assert_published(renderer, kind, device="cpu"):
    """Images and gradients of one golden file, at the tolerances of renderers that cut at its tiles."""
    golden, cameras, height, width = _load(kind)
    golden = {name: tensor.to(device) for name, tensor in golden.items()}
    packed = golden["gaussians"].requires_grad_()
    gaussians = Gaussians.from_packed(packed)
    render = renderer(gaussians, cameras.to(device), height, width, golden["background"])
    _assert_images_agree(render.images, golden["image"], 5e-5)
    _assert_images_agree(render.alphas, golden["alpha"], 5e-5)
    _assert_images_agree(render.depths, golden["depth"], 1e-4)

    (render.images * golden["weight_image"]).sum().add(
        (render.alphas * golden["weight_alpha"]).sum()
    ).backward()
    grad = _without_radial_part(packed.grad, packed.detach())
    expected = _without_radial_part(golden["grad_gaussians"], packed.detach())
    for name, part in PARTS.items():
        error = (grad - expected)[..., part].norm() / expected[..., part].norm().clamp_min(1e-12)
        assert error <= 2e-3, f"{name}: {error:.1e}"


@pytest.mark.parametrize("tile_size", [None, 4, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_published_rasterizer(kind, tile_size):
    assert_published(TorchRenderer(tile_size), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_published_radii(kind):
    golden, cameras, height, width = _load(kind)
    splats = project(Gaussians.from_packed(golden["gaussians"]), cameras, height, width)
    drawn = golden["radii"] > 0
    assert (splats.in_front | ~drawn).all()
    assert torch.equal(splats.radii[drawn].int(), golden["radii"][drawn])


class _Capped(torch.autograd.Function):
    """min(alpha, 0.99) that lets gradients through as if it were not there."""

    @staticmethod
    def forward(ctx, alphas):
        return alphas.clamp_max(0.99)

    @staticmethod
    def backward(ctx, grad):
        return grad


def _rotations(quats):
    w, x, y, z = quats.unbind(-1)
    rows = [
        [1 - 2 * (y**2 + z**2), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x**2 + z**2), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x**2 + y**2)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _dense_image(gaussians, scene, c2w, K, height, width, background):
    """Every Gaussian at every pixel of one image, straight from the formulas, in autograd."""
    w2c = torch.linalg.inv(c2w)
    means = gaussians.means[scene] @ w2c[:3, :3].T + w2c[:3, 3]
    order = means[:, 2].argsort(stable=True)
    order = order[means[order, 2] > 0.2]
    x, y, z = means[order].unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]

    bent_x = (x / z).clamp((-cx - 0.15 * width) / fx, (width - cx + 0.15 * width) / fx)
    bent_y = (y / z).clamp((-cy - 0.15 * height) / fy, (height - cy + 0.15 * height) / fy)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * bent_x / z], -1),
            torch.stack([zero, fy / z, -fy * bent_y / z], -1),
        ],
        dim=-2,
    )
    axes = _rotations(gaussians.quats[scene, order]) * gaussians.scales[scene, order][:, None]
    root = jacobian @ w2c[:3, :3] @ axes
    covariance = root @ root.mT + 0.3 * torch.eye(2, dtype=root.dtype)
    small, large = torch.linalg.eigvalsh(covariance.detach()).unbind(-1)
    # The published program keeps the two eigenvalues at least 2·√0.1 apart here.
    radii = (3 * (0.5 * (small + large) + (0.5 * (large - small)).clamp_min(0.1**0.5)).sqrt()).ceil()

    center = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([u, v], dim=-1).to(center).flatten(0, 1)
    offset = pixels - center[:, None]  # [N, P, 2]
    power = -0.5 * (offset @ torch.linalg.inv(covariance) * offset).sum(-1)
    alphas = gaussians.opacities[scene, order][:, None] * power.exp()
    alphas = _Capped.apply(torch.where(alphas >= 1 / 255, alphas, 0))

    # Tiles of 16 pixels that the square of `radii` around the centre touches.
    tile = ((pixels - 0.5) / 16).floor()
    low = ((center - 0.5 - radii[:, None]) / 16).floor()[:, None]
    high = ((center - 0.5 + radii[:, None] + 15) / 16).floor()[:, None]
    alphas = alphas * ((tile >= low) & (tile < high)).all(-1)

    behind = (1 - alphas).cumprod(0)
    drawn = behind >= 1e-4
    front = torch.cat([torch.ones_like(behind[:1]), behind[:-1]])
    weights = alphas * front * drawn
    left = (1 - alphas * drawn).prod(0)
    features = torch.cat([gaussians.colors[scene, order], z[:, None], torch.ones_like(z)[:, None]], dim=-1)
    image = weights.T @ features + torch.nn.functional.pad(left[:, None] * background, (0, 2))
    return rearrange(image, "(h w) c -> c h w", h=height)


def _dense(gaussians, cameras, height, width, background):
    K = cameras.intrinsics(height, width)
    scenes, views = cameras.shape
    background = torch.as_tensor(background).to(gaussians.means).expand(scenes, views, 3)
    return torch.stack(
        [
            torch.stack(
                [
                    _dense_image(gaussians, b, cameras.c2w[b, v], K[b, v], height, width, background[b, v])
                    for v in range(views)
                ]
            )
            for b in range(scenes)
        ]
    )


def _random_scene(scenes, num, scale, opacity, spread=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    uniform = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    low, high = opacity
    return Gaussians(
        means=(uniform(scenes, num, 3) * 2 - 1) * spread,
        quats=torch.nn.functional.normalize(normal(scenes, num, 4), dim=-1),
        scales=scale * normal(scenes, num, 3).mul(0.6).exp(),
        opacities=uniform(scenes, num) * (high - low) + low,
        colors=uniform(scenes, num, 3),
    )


def _orbit(scenes, views, radius=1.5, aspect=1.0):
    elevation = torch.linspace(-40, 60, scenes * views)
    azimuth = torch.arange(scenes * views) * 77.0
    cameras = Cameras.orbit(elevation, azimuth, radius, aspect=aspect).to(torch.float64)
    # Poses are made in float32: rigid in float64 only after this.
    left, _, right = torch.linalg.svd(cameras.c2w[..., :3, :3])
    cameras.c2w[..., :3, :3] = left @ right
    return Cameras(
        rearrange(cameras.c2w, "(b v) i j -> b v i j", b=scenes),
        rearrange(cameras.K_norm, "(b v) i j -> b v i j", b=scenes),
    )


def _off_centre(cameras):
    K_norm = cameras.K_norm.clone()
    K_norm[..., 0, 0] *= 1.3
    K_norm[..., 0, 2], K_norm[..., 1, 2] = 0.35, 0.6
    return Cameras(cameras.c2w, K_norm)


SCENES = {
    "one Gaussian": (_random_scene(1, 1, 0.1, (0.5, 0.9)), _orbit(1, 1), 24, 24),
    "several scenes and views, not square": (
        _random_scene(2, 200, 0.05, (0.0, 1.0)),
        _orbit(2, 3, aspect=40 / 24),
        24,
        40,
    ),
    "a size that no tile divides": (_random_scene(1, 60, 0.06, (0.1, 1.0)), _orbit(1, 2), 19, 19),
    "thousands": (_random_scene(1, 3000, 0.03, (0.0, 0.7)), _orbit(1, 1), 32, 32),
    "opaque, past the cap": (_random_scene(1, 300, 0.12, (0.98, 1.0)), _orbit(1, 2), 24, 24),
    "camera inside the cloud": (
        _random_scene(1, 300, 0.05, (0.1, 0.8), spread=1.0),
        _orbit(1, 2, radius=0.3),
        24,
        24,
    ),
    "one over the whole image": (_random_scene(1, 1, 30.0, (0.6, 0.7), spread=0.1), _orbit(1, 1), 40, 40),
    "off-centre, two focal lengths": (
        _random_scene(1, 150, 0.06, (0.1, 0.9), spread=0.9),
        _off_centre(_orbit(1, 2)),
        24,
        24,
    ),
}


def _gradients(image, gaussians, seed=1):
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    leaves = [gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors]
    return torch.autograd.grad((image * weights.to(image)).sum(), leaves)


def _leaves(gaussians, dtype):
    copy = gaussians.to(dtype)
    names = ("means", "quats", "scales", "opacities", "colors")
    return Gaussians(**{name: getattr(copy, name).clone().requires_grad_() for name in names})


def _render(gaussians, cameras, height, width, background, **options):
    render = TorchRenderer(**options)(gaussians, cameras, height, width, background)
    return torch.cat([render.images, render.depths, render.alphas], dim=2)


@pytest.mark.parametrize(
    "options", [{}, {"tile_size": 16, "max_pairs": 5000}], ids=["default", "small blocks"]
)
@pytest.mark.parametrize("name", SCENES)
def test_dense_evaluation(name, options):
    scene, cameras, height, width = SCENES[name]
    background = torch.rand(*cameras.shape, 3, generator=torch.Generator().manual_seed(2)).double()
    gaussians = _leaves(scene, torch.float64)
    ours = _render(gaussians, cameras, height, width, background, **options)
    dense = _dense(gaussians, cameras, height, width, background)
    assert dense[:, :, 4].max() > 0.1, "the scene shows something"
    torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-10)
    for grad, expected in zip(_gradients(ours, gaussians), _gradients(dense, gaussians), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-7, atol=1e-7 * expected.abs().max().item())


@pytest.mark.parametrize("name", SCENES)
def test_float32_is_close_to_float64(name):
    scene, cameras, height, width = SCENES[name]
    double, single = _leaves(scene, torch.float64), _leaves(scene, torch.float32)
    exact = _render(double, cameras, height, width, (1.0, 1.0, 1.0))
    rounded = _render(single, cameras, height, width, (1.0, 1.0, 1.0))
    assert rounded.dtype == torch.float32
    _assert_images_agree(rounded, exact, 1e-4)
    for grad, expected in zip(_gradients(rounded, single), _gradients(exact, double), strict=True):
        assert (grad - expected).norm() <= 2e-3 * expected.norm()
