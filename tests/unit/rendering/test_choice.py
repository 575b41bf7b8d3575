"""What renderer=auto draws with: forward passes of a shape that comes again are captured, no others."""

import pytest
import torch

from lgm.gaussians import Gaussians
from lgm.rendering import TorchRenderer, TritonRenderer, choice
from tests.triton_scenes import BACKGROUND, cloud, orbit


@pytest.fixture
def called(monkeypatch):
    """Names of the renderers that drew, in order; on the CPU, in the place of those of a GPU."""
    names = []

    class Eager(TritonRenderer):
        name = "eager"

        def __init__(self, *arguments, **options):
            """Without triton."""

        def __call__(self, *arguments, **options):
            names.append(self.name)
            return TorchRenderer()(*arguments, **options)

    class Captured(Eager):
        name = "captured"

    monkeypatch.setattr(choice, "fastest", lambda device_type, max_gib: Eager())
    monkeypatch.setattr(choice, "CapturedRenderer", Captured)
    return names


def draw(renderer, packed, num_views=1, size=16):
    return renderer(Gaussians.from_packed(packed), orbit(1, num_views), size, size, BACKGROUND)


def test_a_shape_that_comes_again_is_captured(called):
    renderer, packed = choice.AutoRenderer(), cloud(1, 5, 0.1)
    for num_views, size in [(1, 16), (1, 16), (2, 16), (1, 8), (2, 16), (1, 16)]:
        draw(renderer, packed, num_views, size)
    assert called == ["eager", "captured", "eager", "eager", "captured", "captured"]


def test_the_first_gradient_ends_it_for_good(called):
    renderer, packed = choice.AutoRenderer(), cloud(1, 5, 0.1)
    leaf = packed.clone().requires_grad_()
    with torch.no_grad():
        for _ in range(2):
            draw(renderer, leaf)
    draw(renderer, leaf).images.sum().backward()
    assert leaf.grad.abs().sum() > 0
    for _ in range(3):
        draw(renderer, packed)
    assert called == ["eager", "captured", "eager", "eager", "eager", "eager"]


def test_a_gradient_of_the_background_alone_is_one(called):
    renderer, scene = choice.AutoRenderer(), Gaussians.from_packed(cloud(1, 5, 0.1))
    background = torch.rand(3, requires_grad=True)
    for _ in range(3):
        renderer(scene, orbit(1, 1), 8, 8, background)
    assert called == ["eager"] * 3


def test_other_backends_are_never_captured(monkeypatch):
    choice.fastest.cache_clear()
    monkeypatch.setattr(choice, "CapturedRenderer", None)  # making one would fail
    renderer, packed = choice.AutoRenderer(), cloud(1, 5, 0.1)
    expected = draw(TorchRenderer(), packed)
    for _ in range(3):
        assert torch.equal(draw(renderer, packed).images, expected.images)
