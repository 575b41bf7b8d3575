"""The Triton renderer's kernels, compiled, on a GPU."""

import pytest
import torch

from lgm.gaussians import Gaussians
from lgm.rendering import CapturedRenderer, TritonRenderer, make_renderer
from tests.parity.test_rasterizer import KINDS, assert_published
from tests.triton_scenes import (
    BACKGROUND,
    LARGE,
    check,
    cloud,
    drawn,
    of_both_projections,
    orbit,
    parallel,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_published_rasterizer(kind):
    assert_published(TritonRenderer(), kind, "cuda")


@pytest.mark.parametrize("name", LARGE)
def test_torch_renderer(name):
    check(name, LARGE, "cuda")


@pytest.mark.parametrize("name", ["tens of thousands", "random initialisation"])
def test_layers_change_no_number(name):
    check(name, LARGE, "cuda", max_gib=0.01)


def test_the_same_each_time():
    packed, cameras, height, width = LARGE["random initialisation"]
    first, second = (drawn(TritonRenderer(), packed, cameras, height, width, "cuda") for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_a_random_initialisation_of_the_big_model_fits():
    """Eight scenes, eight views, 65,536 Gaussians of scale 0.07, 512²: in 8 GB, forward and backward."""
    packed, cameras = cloud(8, 65_536, 0.07), orbit(8, 8)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    drawn(TritonRenderer(), packed, cameras, 512, 512, "cuda")
    assert torch.cuda.max_memory_allocated() < 8 * 2**30


def test_autocast_leaves_it_in_float32():
    packed, cameras, height, width = LARGE["scenes and views, not square"]
    expected = drawn(TritonRenderer(), packed, cameras, height, width, "cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        ours = drawn(TritonRenderer(), packed, cameras, height, width, "cuda")
    assert torch.equal(ours[0], expected[0])


def test_a_captured_graph_draws_the_same():
    """... of other Gaussians and cameras of the same shapes, and where they need more room than before."""
    captured, eager = CapturedRenderer(), TritonRenderer()
    for num, scale, seed in [(5000, 0.01, 0), (5000, 0.01, 1), (5000, 0.2, 2), (5000, 0.01, 0), (70, 0.1, 0)]:
        gaussians = Gaussians.from_packed(cloud(1, num, scale, seed=seed).cuda())
        for views in (orbit(1, 2), orbit(1, 2, radius=1.0), parallel(1, 2), of_both_projections(1, 1)):
            cameras = views.to("cuda")
            ours = captured(gaussians, cameras, 128, 96, BACKGROUND)
            expected = eager(gaussians, cameras, 128, 96, BACKGROUND)
            for name in ("images", "alphas", "depths"):
                assert torch.equal(getattr(ours, name), getattr(expected, name)), (num, scale, name)


def test_a_captured_graph_sees_changes_in_place():
    captured, eager = CapturedRenderer(), TritonRenderer()
    packed, cameras = cloud(1, 2000, 0.02).cuda(), orbit(1, 1).to("cuda")
    gaussians = Gaussians.from_packed(packed)
    for _ in range(3):
        packed[..., 11:14] *= 0.5
        ours = captured(gaussians, cameras, 64, 64)
        assert torch.equal(ours.images, eager(gaussians, cameras, 64, 64).images)


def test_auto_captures_forward_passes_and_its_results_are_kept():
    auto, eager = make_renderer("auto"), TritonRenderer()
    scenes = [Gaussians.from_packed(cloud(1, 3000, 0.02, seed=seed).cuda()) for seed in range(4)]
    views = [orbit(1, num).to("cuda") for num in (2, 3, 1)]  # more shapes than graphs are kept
    results = []
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            for gaussians in scenes:
                for cameras in views:
                    ours = auto(gaussians, cameras, 96, 64, BACKGROUND)
                    results.append((ours, eager(gaussians, cameras, 96, 64, BACKGROUND)))
    assert auto._forward._captured is not None and not auto._forward._captured._fails
    assert 0 < len(auto._forward._captured._graphs) <= 2
    for ours, expected in results:  # all are compared at the end: no call may change an earlier one's
        for name in ("images", "alphas", "depths"):
            assert torch.equal(getattr(ours, name), getattr(expected, name)), name


def test_a_gradient_ends_the_capture_and_gives_its_memory_back():
    auto, packed, cameras = make_renderer("auto"), cloud(1, 20_000, 0.02).cuda(), orbit(1, 4).to("cuda")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        for _ in range(3):
            auto(Gaussians.from_packed(packed), cameras, 256, 256)
    assert torch.cuda.memory_allocated() > before
    leaf = packed.clone().requires_grad_()
    auto(Gaussians.from_packed(leaf), cameras, 256, 256).images.sum().backward()
    assert leaf.grad.abs().sum() > 0
    del leaf
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before + 2**20
