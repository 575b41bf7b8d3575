"""The network recorded as one graph, plain and compiled, against itself."""

import pytest
import torch

from lgm.cameras import Cameras
from lgm.models import FastLGM
from tests.unit.models.test_fast import make_net

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
SHAPE = {"down_channels": (64, 128, 128), "down_attention": (False, False, True)}
SHAPE |= {"up_channels": (128, 64), "up_attention": (True, False), "input_size": 64}


def pictures(scenes: int, seed: int) -> tuple[torch.Tensor, Cameras]:
    images = torch.rand(scenes, 4, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    cameras = Cameras.orbit([0.0] * 4, [0.0, 90.0, 180.0, 270.0])[None]
    cameras = Cameras(cameras.c2w.expand(scenes, -1, -1, -1), cameras.K_norm.expand(scenes, -1, -1, -1))
    return images.cuda(), cameras.to("cuda")


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_graph_replays_on_new_pictures_and_other_shapes(dtype, compile, any_shape):
    reference = make_net(**SHAPE).cuda()
    fast = FastLGM(make_net(**SHAPE).cuda().in_half(dtype), compile=compile, graph=True)
    kept = []
    for scenes, seed in ((1, 0), (1, 1), (2, 2), (1, 3)):
        batch = pictures(scenes, seed)
        with torch.no_grad():
            expected = reference(*batch).means
        gaussians = fast(*batch)
        assert gaussians.packed().dtype == torch.float32
        assert (gaussians.means - expected).abs().max() < (5e-3 if dtype == torch.float16 else 3e-2)
        kept.append((gaussians, gaussians.packed().clone()))
    # What a call has given is not what the next one writes to.
    assert all(torch.equal(gaussians.packed(), before) for gaussians, before in kept)
    assert not torch.backends.cudnn.benchmark
