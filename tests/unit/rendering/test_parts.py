"""Drawing some images at a time."""

import pytest
import torch

from lgm.gaussians import Gaussians
from lgm.rendering import TorchRenderer
from lgm.rendering.chunked import draw_in_parts
from tests.triton_scenes import BACKGROUND, cloud, orbit


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 6, 9, 100])
@pytest.mark.parametrize("background", [torch.tensor(BACKGROUND), torch.linspace(0, 1, 27).reshape(3, 3, 3)])
def test_parts_are_the_whole(at_once, background):
    packed, cameras, shapes = cloud(3, 40, 0.06), orbit(3, 3), []

    def draw(gaussians, cameras, background):
        shapes.append(tuple(cameras.shape))
        render = TorchRenderer()(gaussians, cameras, 16, 20, background)
        return render.images, render.alphas

    results = []
    for most in (10_000, at_once):
        shapes.clear()
        leaf = packed.clone().requires_grad_()
        images, alphas = draw_in_parts(draw, Gaussians.from_packed(leaf), cameras, background, most)
        drawn = list(shapes)
        (images.square().sum() + alphas.sum()).backward()
        results.append((images, alphas, leaf.grad))
    assert max(scenes * views for scenes, views in drawn) <= at_once
    assert sum(scenes * views for scenes, views in drawn) == 9
    assert len(shapes) == len(drawn) * (1 if at_once >= 9 else 2)  # again on the way back
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)
