"""What gsplat is handed, and what a machine that cannot run it is told. Its images: tests/gpu."""

import logging
import sys
import types

import pytest
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering import GsplatRenderer, Renderer, TorchRenderer, choice, gsplat_backend, make_renderer

HEIGHT, WIDTH = 24, 40


def _scene(scenes=2, views=3, num=60):
    generator = torch.Generator().manual_seed(0)
    packed = torch.rand(scenes, num, 14, generator=generator)
    packed[..., :3] -= 0.5
    packed[..., 4:7] = 0.02 + 0.05 * packed[..., 4:7]
    packed[..., 7:11] = torch.nn.functional.normalize(packed[..., 7:11] - 0.5, dim=-1)
    angles = torch.arange(scenes * views) * 50.0
    cameras = Cameras.orbit(angles / 5 - 20, angles, aspect=WIDTH / HEIGHT)
    shape = (scenes, views)
    return packed, Cameras(cameras.c2w.reshape(*shape, 4, 4), cameras.K_norm.reshape(*shape, 3, 3))


def _rasterization(calls):
    """gsplat.rasterization in its own conventions, drawn by the reference."""

    def rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, **options):
        calls.append({"means": means, "viewmats": viewmats, "Ks": Ks, "colors": colors, **options})
        size = Ks.new_tensor([width, height, 1.0])
        cameras = Cameras(torch.linalg.inv(viewmats), Ks / size[:, None])
        gaussians = Gaussians(means, quats, scales, opacities, colors)
        render = TorchRenderer()(gaussians, cameras, height, width, options["backgrounds"])
        images = torch.cat([render.images, render.depths], dim=2)
        return images.movedim(2, -1), render.alphas.movedim(2, -1), {}

    return rasterization


@pytest.fixture
def gsplat(monkeypatch, tmp_path):
    """A gsplat that runs on the CPU, and a machine that has what the real one wants."""
    package, kernels = types.ModuleType("gsplat"), types.ModuleType("gsplat.cuda._backend")
    package.__version__, package.calls, kernels._C = "1.5.3+pt29cu128", [], object()
    package.rasterization = _rasterization(package.calls)
    monkeypatch.setitem(sys.modules, "gsplat", package)
    monkeypatch.setitem(sys.modules, "gsplat.cuda", types.ModuleType("gsplat.cuda"))
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", kernels)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gsplat_backend, "DEVICE_TYPE", "cpu")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    return package


@pytest.fixture
def no_cached_choice():
    choice.fastest.cache_clear()
    yield
    choice.fastest.cache_clear()


def test_one_call_in_gsplats_conventions(gsplat):
    packed, cameras = _scene()
    background = torch.rand(2, 3, 3)
    GsplatRenderer()(Gaussians.from_packed(packed), cameras, HEIGHT, WIDTH, background)
    (call,) = gsplat.calls  # all scenes and views at once
    assert call["viewmats"].shape == (2, 3, 4, 4) and call["Ks"].shape == (2, 3, 3, 3)
    assert (call["near_plane"], call["eps2d"], call["render_mode"]) == (0.2, 0.3, "RGB+D")
    assert call["packed"] is False
    assert torch.equal(call["backgrounds"], background)
    # World to camera with +z ahead: the origin lies 1.5 in front of every camera of the orbit.
    origin = call["viewmats"] @ torch.tensor([0.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(origin, torch.tensor([0, 0, 1.5, 1]).expand(2, 3, 4), atol=1e-5, rtol=0)
    # ... and +y down: what is higher in the world has a smaller y.
    above = call["viewmats"] @ torch.tensor([0.0, 0.1, 0.0, 1.0])
    assert (above[..., 1] < 0).all()
    # Pixels: the vertical field of view is 49.1°, the pixels are square, the centre is in the middle.
    focal = 0.5 * HEIGHT / torch.tan(torch.deg2rad(torch.tensor(49.1 / 2)))
    K = torch.tensor([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    torch.testing.assert_close(call["Ks"], K.expand(2, 3, 3, 3))


@pytest.mark.parametrize(
    "background",
    [(0.2, 0.5, 1.0), torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0))],
    ids=["one", "one a view"],
)
def test_images_and_gradients_come_back_in_our_layout(gsplat, background):
    packed, cameras = _scene()
    results = []
    for renderer in (GsplatRenderer(), TorchRenderer()):
        leaf = packed.clone().requires_grad_()
        render = renderer(Gaussians.from_packed(leaf), cameras, HEIGHT, WIDTH, background)
        images = torch.cat([render.images, render.depths, render.alphas], dim=2)
        weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
        (images * weights).sum().backward()
        results.append((render.images, render.alphas, render.depths, leaf.grad))
        assert all(x.is_contiguous() for x in results[-1])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_float32_whatever_the_autocast(gsplat, dtype):
    packed, cameras = _scene()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        render = GsplatRenderer()(Gaussians.from_packed(packed.to(dtype)), cameras.to(dtype), HEIGHT, WIDTH)
    (call,) = gsplat.calls
    for name in ("means", "colors", "viewmats", "Ks", "backgrounds"):
        assert call[name].dtype == torch.float32, name
    assert render.images.dtype == render.alphas.dtype == render.depths.dtype == torch.float32
    exact = cameras.to(dtype).to(torch.float32)
    torch.testing.assert_close(call["viewmats"], exact.w2c, atol=1e-6, rtol=0)  # no half-precision product


def test_doors(gsplat):
    packed, cameras = _scene()
    gaussians = Gaussians.from_packed(packed)
    make_renderer("gsplat")
    with pytest.raises(ValueError, match="background"):
        GsplatRenderer()(gaussians, cameras, HEIGHT, WIDTH, torch.ones(2, 3))


def _one_line(*, match):
    with pytest.raises(ValueError, match=match) as error:
        GsplatRenderer()
    assert "\n" not in str(error.value)
    assert "choose renderer=torch" in str(error.value)


def test_gaussians_on_the_cpu_get_one_line(gsplat, monkeypatch):
    monkeypatch.setattr(gsplat_backend, "DEVICE_TYPE", "cuda")
    packed, cameras = _scene()
    with pytest.raises(ValueError, match="NVIDIA GPUs and the Gaussians are on cpu"):
        GsplatRenderer()(Gaussians.from_packed(packed), cameras, HEIGHT, WIDTH)


def test_no_gpu_gets_one_line(gsplat, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _one_line(match="torch sees none here; choose renderer=torch$")


def test_no_gsplat_gets_one_line(gsplat, monkeypatch):
    monkeypatch.delitem(sys.modules, "gsplat")
    monkeypatch.setattr(sys, "path", [])
    sys.path_importer_cache.clear()
    _one_line(match=r"not installed: pip install 'gsplat>=1\.5\.3' .*nvcc")


def test_an_old_gsplat_gets_one_line(gsplat):
    gsplat.__version__ = "1.4.0"
    _one_line(match=r"gsplat 1\.4\.0 is older than 1\.5\.3")


def test_no_compiler_gets_one_line(gsplat):
    sys.modules["gsplat.cuda._backend"]._C = None
    _one_line(match="no nvcc .*CUDA_HOME")


def test_kernels_that_do_not_compile_get_one_line(gsplat, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "gsplat.cuda._backend")
    (tmp_path / "_backend.py").write_text("raise RuntimeError('Error building extension\\nnvcc: fatal')")
    sys.modules["gsplat.cuda"].__path__ = [str(tmp_path)]
    _one_line(match=r"do not compile or load here \(Error building extension\).*TORCH_CUDA_ARCH_LIST")


def test_auto_takes_the_fastest_that_is_usable(gsplat, monkeypatch, caplog, no_cached_choice):
    monkeypatch.setattr(choice, "_FASTEST_FIRST", {"cpu": ("gsplat",)})
    packed, cameras = _scene()
    with caplog.at_level(logging.INFO, logger="lgm.rendering"):
        make_renderer()(Gaussians.from_packed(packed), cameras, HEIGHT, WIDTH)
        make_renderer()(Gaussians.from_packed(packed), cameras, HEIGHT, WIDTH)
    assert len(gsplat.calls) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "renderer auto on cpu: gsplat (the fastest)"
    ]


def test_auto_says_why_it_takes_a_slower_one(gsplat, monkeypatch, caplog, no_cached_choice):
    monkeypatch.setattr(choice, "_FASTEST_FIRST", {"cpu": ("gsplat",)})
    sys.modules["gsplat.cuda._backend"]._C = None
    packed, cameras = _scene()
    with caplog.at_level(logging.INFO, logger="lgm.rendering"):
        renderer = make_renderer()
        assert isinstance(renderer, Renderer)
        renderer(Gaussians.from_packed(packed), cameras, HEIGHT, WIDTH)
    assert "renderer auto on cpu: torch (gsplat cannot be used: gsplat found no nvcc" in caplog.text
