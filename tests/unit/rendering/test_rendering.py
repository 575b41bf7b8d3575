import logging

import pytest
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering import Renderer, TorchRenderer, TritonRenderer, choice, make_renderer
from lgm.rendering.projection import project
from lgm.rendering.tiles import list_splats


def _gaussians(num=50, scenes=1, scale=0.05, opacity=0.8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.rand(scenes, num, 3, generator=generator) - 0.5,
        quats=torch.nn.functional.normalize(torch.randn(scenes, num, 4, generator=generator), dim=-1),
        scales=torch.full((scenes, num, 3), scale),
        opacities=torch.full((scenes, num), opacity),
        colors=torch.rand(scenes, num, 3, generator=generator),
    ).to(dtype)


def _cameras(scenes=1, azimuth=(0.0, 120.0), elevation=0.0):
    cameras = Cameras.orbit([elevation] * len(azimuth), list(azimuth))
    shape = (scenes, len(azimuth))
    return Cameras(cameras.c2w.expand(*shape, 4, 4), cameras.K_norm.expand(*shape, 3, 3))


def _ball(position, color):
    return Gaussians(
        means=torch.tensor([[position]]),
        quats=torch.tensor([[[1.0, 0, 0, 0]]]),
        scales=torch.full((1, 1, 3), 0.05),
        opacities=torch.full((1, 1), 0.9),
        colors=torch.tensor([[color]]),
    )


@pytest.mark.parametrize(
    ("position", "azimuth", "elevation", "place"),
    [
        ((0.0, 0.4, 0.0), 0.0, 0.0, "top"),
        ((0.4, 0.0, 0.0), 0.0, 0.0, "right"),
        ((0.0, 0.0, 0.4), 90.0, 0.0, "left"),
        ((0.0, 0.0, 0.4), 0.0, 30.0, "bottom"),  # seen from above, what is near lies low
    ],
)
def test_images_are_upright(position, azimuth, elevation, place):
    cameras = _cameras(azimuth=(azimuth,), elevation=elevation)
    alphas = TorchRenderer()(_ball(position, (1.0, 0.0, 0.0)), cameras, 30, 30).alphas[0, 0, 0]
    halves = {"top": alphas[:13], "bottom": alphas[-13:], "left": alphas[:, :13], "right": alphas[:, -13:]}
    assert max(halves, key=lambda half: halves[half].sum()) == place


def test_colour_depth_and_coverage_of_one_ball():
    render = TorchRenderer()(
        _ball((0.0, 0.0, 0.5), (0.2, 0.4, 0.6)), _cameras(azimuth=(0.0,)), 33, 33, (0, 0, 1)
    )
    alpha = render.alphas[0, 0, 0, 16, 16]  # the ray through the middle meets the ball's centre
    torch.testing.assert_close(alpha, torch.tensor(0.9))
    torch.testing.assert_close(render.depths[0, 0, 0, 16, 16], alpha * 1.0)
    expected = 0.9 * torch.tensor([0.2, 0.4, 0.6]) + 0.1 * torch.tensor([0.0, 0, 1])
    torch.testing.assert_close(render.images[0, 0, :, 16, 16], expected)
    torch.testing.assert_close(render.images[0, 0, :, 0, 0], torch.tensor([0.0, 0, 1]))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (64, 48)])
def test_shapes(height, width):
    render = TorchRenderer()(_gaussians(scenes=2), _cameras(2, (0.0, 1.0, 2.0)), height, width)
    assert render.images.shape == (2, 3, 3, height, width)
    assert render.alphas.shape == render.depths.shape == (2, 3, 1, height, width)


@pytest.mark.parametrize(
    "gaussians",
    [
        _gaussians(0),
        _gaussians(5, opacity=0.003),
        Gaussians.from_packed(_gaussians(5).packed() + torch.tensor([0, 0, 9.0, *[0] * 11])),
    ],
    ids=["none", "too faint", "behind the camera"],
)
def test_nothing_to_see_is_background_without_gradient(gaussians):
    packed = gaussians.packed().requires_grad_()
    render = TorchRenderer()(Gaussians.from_packed(packed), _cameras(azimuth=(0.0,)), 16, 16, (0.1, 0.2, 0.3))
    assert torch.equal(render.images, torch.tensor([0.1, 0.2, 0.3])[:, None, None].expand(1, 1, 3, 16, 16))
    assert not render.alphas.any() and not render.depths.any()
    (render.images.sum() + render.depths.sum() + render.alphas.sum()).backward()
    assert not packed.grad.any()


def test_scenes_and_views_are_independent():
    gaussians, cameras = _gaussians(scenes=2), _cameras(2)
    together = TorchRenderer()(gaussians, cameras, 32, 32).images
    for b in range(2):
        for v in range(2):
            alone = TorchRenderer()(gaussians.scene(b), cameras[b : b + 1, v : v + 1], 32, 32).images
            torch.testing.assert_close(alone[0, 0], together[b, v])


@pytest.mark.parametrize(
    "options", [{"tile_size": 4}, {"tile_size": 16}, {"max_pairs": 20_000}, {"max_pairs": 10**7}]
)
def test_options_change_speed_only(options):
    gaussians, cameras = _gaussians(400), _cameras()
    expected, packed = TorchRenderer()(gaussians, cameras, 40, 24), gaussians.packed()
    render = TorchRenderer(**options)(gaussians, cameras, 40, 24)
    torch.testing.assert_close(render.images, expected.images, atol=1e-5, rtol=0)
    grads = []
    for renderer in (TorchRenderer(), TorchRenderer(**options)):
        leaf = packed.clone().requires_grad_()
        renderer(Gaussians.from_packed(leaf), cameras, 40, 24).images.square().sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[1], grads[0], atol=1e-3, rtol=1e-3)


def test_lists_made_in_groups_are_the_same(monkeypatch):
    gaussians, cameras = _gaussians(100, scenes=2), _cameras(2)
    splats = project(gaussians, cameras, 32, 32)
    whole = list_splats(splats, gaussians.opacities[:, None], 32, 32, 8)
    monkeypatch.setattr("lgm.rendering.tiles._INTERSECTIONS_AT_ONCE", 10)
    grouped = list_splats(splats, gaussians.opacities[:, None], 32, 32, 8)
    for name in ("splat_ids", "starts", "counts"):
        assert torch.equal(getattr(whole, name), getattr(grouped, name))


def test_large_splats_take_large_tiles():
    def tile_size(scale):
        gaussians = _gaussians(20, scale=scale)
        splats = project(gaussians, _cameras(), 128, 128)
        return list_splats(splats, gaussians.opacities[:, None], 128, 128, None).tile_size

    assert tile_size(0.01) == 8
    assert tile_size(0.3) == 16


def test_background_a_image_and_its_gradient():
    background = torch.rand(1, 2, 3, requires_grad=True)
    render = TorchRenderer()(_gaussians(), _cameras(), 16, 16, background)
    for v in range(2):
        alone = TorchRenderer()(_gaussians(), _cameras(), 16, 16, background[0, v]).images
        torch.testing.assert_close(render.images[:, v], alone[:, v])
    (grad,) = torch.autograd.grad(render.images.sum(), background)
    torch.testing.assert_close(grad, (1 - render.alphas).sum((-1, -2)).expand(1, 2, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_rendered_in_float32(dtype):
    gaussians = _gaussians(dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        render = TorchRenderer()(gaussians, _cameras(), 32, 32)
    assert render.images.dtype == torch.float32
    expected = TorchRenderer()(gaussians.to(torch.float32), _cameras(), 32, 32)
    assert torch.equal(render.images, expected.images)


def test_backward_under_autocast_is_float32():
    expected, packed = (_gaussians().packed().requires_grad_() for _ in range(2))
    TorchRenderer()(Gaussians.from_packed(expected), _cameras(), 32, 32).images.square().sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        TorchRenderer()(Gaussians.from_packed(packed), _cameras(), 32, 32).images.square().sum().backward()
    torch.testing.assert_close(packed.grad, expected.grad)


def test_matmul_precision_is_full_inside_and_restored():
    gaussians, cameras = _gaussians(400), _cameras()
    expected = TorchRenderer()(gaussians, cameras, 32, 32).images
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(TorchRenderer()(gaussians, cameras, 32, 32).images, expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_is_bounded_by_max_pairs(monkeypatch):
    """One tile with thousands of faint Gaussians on it: no block grows with the list."""
    from lgm.rendering import blending

    sizes = []
    original = blending._weights

    def recorded(alphas, *rest):
        sizes.append(alphas.numel())
        return original(alphas, *rest)

    monkeypatch.setattr(blending, "_weights", recorded)
    gaussians = _gaussians(3000, scale=0.01, opacity=0.01)
    TorchRenderer(max_pairs=20_000)(gaussians, _cameras(), 8, 8)
    assert len(sizes) > 5
    assert max(sizes) <= 20_000


def test_opaque_tiles_end_early(monkeypatch):
    from lgm.rendering import blending

    pairs = []
    original = blending._weights
    monkeypatch.setattr(
        blending, "_weights", lambda alphas, *rest: (pairs.append(alphas.numel()), original(alphas, *rest))[1]
    )
    gaussians = _gaussians(2000, scale=0.5, opacity=0.9)
    TorchRenderer(tile_size=8, max_pairs=4096)(gaussians, _cameras(azimuth=(0.0,)), 16, 16)
    assert sum(pairs) < 0.1 * 2000 * 16 * 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda g, c: (g, c[0], 16, 16), "batch shape"),
        (lambda g, c: (g, _cameras(3), 16, 16), "batch shape"),
        (lambda g, c: (g, c, 0, 16), "height=0"),
        (lambda g, c: (g, c, 16, 16, (1.0, 1.0)), "background"),
        (lambda g, c: (g, c, 16, 16, torch.ones(2, 3)), "background"),
    ],
)
def test_wrong_shapes_get_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        TorchRenderer()(*arguments(_gaussians(), _cameras()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"tile_size": 7}, {"max_pairs": 0}])
def test_wrong_options_get_one_line(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TorchRenderer(**options)


def test_make_renderer(caplog):
    choice.fastest.cache_clear()
    expected = TorchRenderer()(_gaussians(), _cameras(), 16, 16).images
    with caplog.at_level(logging.INFO, logger="lgm.rendering"):
        for renderer in (make_renderer(), make_renderer("auto"), make_renderer("torch")):
            assert isinstance(renderer, Renderer)
            assert torch.equal(renderer(_gaussians(), _cameras(), 16, 16).images, expected)
    assert len(caplog.records) == 1
    assert "torch" in caplog.text
    with pytest.raises(
        ValueError, match="'vulkan' is unknown; choose one of auto, triton, gsplat, inria, torch"
    ):
        make_renderer("vulkan")


def test_the_bound_of_a_call_reaches_the_renderer_that_auto_takes(monkeypatch):
    class Bounded(TritonRenderer):
        def __init__(self, max_gib=6.0):
            self.max_bytes = int(max_gib * 2**30)

    monkeypatch.setattr(choice, "TritonRenderer", Bounded)
    monkeypatch.setitem(choice.BACKENDS, "triton", Bounded)
    assert choice.fastest("cuda", 2.5).max_bytes == 2.5 * 2**30
    assert make_renderer("triton", 1.5).max_bytes == 1.5 * 2**30
    choice.fastest.cache_clear()
    assert make_renderer(max_gib=2.0).max_gib == 2.0
    with pytest.raises(ValueError, match=r"max_gib=0 must be at least 0\.01"):
        make_renderer("auto", max_gib=0)
    with pytest.raises(ValueError, match=r"name='torch' has no max_gib=2"):
        make_renderer("torch", max_gib=2)
