"""The published rasterizer through our interface: its own golden files, and the torch renderer."""

from importlib.util import find_spec

import pytest
import torch

from lgm.rendering import InriaRenderer, TorchRenderer
from tests.parity.test_rasterizer import KINDS, assert_published
from tests.triton_scenes import LARGE, assert_same, drawn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
    pytest.mark.skipif(
        find_spec("diff_gaussian_rasterization") is None,
        reason="diff_gaussian_rasterization is not installed",
    ),
]


@pytest.mark.parametrize("kind", KINDS)
def test_published_rasterizer(kind):
    assert_published(InriaRenderer(), kind, "cuda")


@pytest.mark.parametrize("name", LARGE)
def test_torch_renderer(name):
    packed, cameras, height, width = LARGE[name]
    ours = drawn(InriaRenderer(), packed, cameras, height, width, "cuda")
    assert_same(ours, drawn(TorchRenderer(), packed, cameras, height, width, "cuda"))
