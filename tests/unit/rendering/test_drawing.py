"""Drawing in turns gives the numbers of drawing at once."""

import pytest
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering import TorchRenderer
from lgm.rendering.drawing import draw
from lgm.types import RenderOutput, Views


class Counting(TorchRenderer):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[int] = []

    def __call__(self, gaussians, cameras, height, width, background=(1.0, 1.0, 1.0)) -> RenderOutput:
        self.images.append(cameras.shape[0] * cameras.shape[1])
        return super().__call__(gaussians, cameras, height, width, background)


def scene(num_scenes: int, num_views: int) -> tuple[Gaussians, Views]:
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    gaussians = Gaussians(
        means=uniform(num_scenes, 50, 3) - 0.5,
        quats=torch.nn.functional.normalize(uniform(num_scenes, 50, 4), dim=-1),
        scales=0.02 + 0.1 * uniform(num_scenes, 50, 3),
        opacities=uniform(num_scenes, 50),
        colors=uniform(num_scenes, 50, 3),
    )
    ring = Cameras.orbit([10.0] * num_views, [360.0 / num_views * i for i in range(num_views)])
    cameras = Cameras(
        ring.c2w.expand(num_scenes, -1, -1, -1).clone(), ring.K_norm.expand(num_scenes, -1, -1, -1).clone()
    )
    images = torch.zeros(num_scenes, num_views, 3, 24, 20)
    ids = torch.zeros(num_scenes, num_views, dtype=torch.long)
    return gaussians, Views(images, images[:, :, :1], cameras, ids)


@pytest.mark.parametrize("limit", [1, 4, 5, 100])
def test_turns_change_no_number(limit):
    gaussians, views = scene(2, 7)
    renderer = Counting()
    background = torch.tensor([[1.0, 1, 1], [0.2, 0.5, 0]])
    at_once = draw(renderer, gaussians, views, background)
    assert renderer.images == [14]
    renderer.images.clear()
    in_turns = draw(renderer, gaussians, views, background, limit)
    assert max(renderer.images) <= max(limit, 2) and sum(renderer.images) == 14
    # Not bit for bit on a CPU: where an image lies in a batch decides which lanes compute its pixels.
    for name in ("images", "alphas", "depths"):
        torch.testing.assert_close(getattr(in_turns, name), getattr(at_once, name), rtol=0, atol=5e-7)
