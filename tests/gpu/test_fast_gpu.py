"""Inference and training at speed=fast against PyTorch's own operations in float32 and float64."""

import pytest
import torch

from lgm.cameras import Cameras
from lgm.kernels.choice import SPEEDS
from lgm.models import LGM, FastLGM
from tests.unit.models.test_fast import MICRO, make_net

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
SHAPE = {"down_channels": (64, 128, 128), "down_attention": (False, False, True)}
SHAPE |= {"up_channels": (128, 64), "up_attention": (True, False), "input_size": 64}


def random_images(scenes: int, seed: int) -> tuple[torch.Tensor, Cameras]:
    images = torch.rand(scenes, 4, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    cameras = Cameras.orbit([0.0] * 4, [0.0, 90.0, 180.0, 270.0])[None]
    cameras = Cameras(cameras.c2w.expand(scenes, -1, -1, -1), cameras.K_norm.expand(scenes, -1, -1, -1))
    return images.cuda(), cameras.to("cuda")


@pytest.fixture
def exact_convolutions(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")


@pytest.mark.parametrize("attention", ["sdpa", "cudnn"])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)]
)
def test_fused_and_channels_last_against_plain_float32(
    dtype, tolerance, graph, attention, exact_convolutions
):
    reference = make_net(**SHAPE).cuda()
    fused = make_net(**SHAPE, kernels="auto", attention=attention).cuda()
    fast = FastLGM(fused if dtype == torch.float32 else fused.in_half(dtype), compile=False, graph=graph)
    assert fast.net.unet.norm_out.fuse
    for scenes, seed in ((1, 0), (2, 1)):
        batch = random_images(scenes, seed)
        with torch.no_grad():
            raw = reference.splat_map(reference.network_input(*batch))
            expected = reference(*batch)
            own = fast.splat_map(fast.net.network_input(*batch)).float()
        assert (own - raw).norm() <= tolerance * raw.norm()
        found = fast(*batch)
        for name in ("means", "scales", "opacities", "colors"):
            assert (getattr(found, name) - getattr(expected, name)).abs().max() < tolerance, name


@pytest.mark.parametrize("attention", ["sdpa", "cudnn"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_gradient_is_as_near_to_float64_as_eager(dtype, attention, exact_convolutions):
    x = torch.randn(2, 4, 9, 64, 64, device="cuda")
    exact, grads = make_net(**SHAPE).cuda().double().train(), {}
    cotangent = torch.randn_like(exact.splat_map(x.double()))
    for name, net in (
        ("exact", exact),
        ("eager", make_net(**SHAPE).cuda().train()),
        ("fast", make_net(**SHAPE, kernels="auto", attention=attention).cuda().train()),
    ):
        with torch.autocast("cuda", dtype, enabled=dtype == torch.bfloat16 and name != "exact"):
            y = net.splat_map(x.double() if name == "exact" else x)
        y.backward(cotangent.to(y.dtype))
        grads[name] = {key: p.grad for key, p in net.named_parameters()}
    least = {torch.float32: 1e-5, torch.bfloat16: torch.finfo(dtype).eps}[dtype]
    scale = max(grad.norm() for key, grad in grads["exact"].items() if key.endswith("bias"))
    for key, true in grads["exact"].items():
        eager, fast = ((grads[name][key] - true).norm() for name in ("eager", "fast"))
        floor = max(true.norm(), scale if key.endswith("bias") else 0)
        assert fast <= 1.25 * eager + least * floor, (key, fast.item(), eager.item(), true.norm().item())


def train(speed: str, seed: int, steps: int = 200) -> torch.Tensor:
    """Losses of a network that learns the opacities of random images, from weights and batches of a seed."""
    torch.manual_seed(seed)
    net = LGM(**{**MICRO, **SHAPE}, kernels=SPEEDS[speed]).cuda().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    drawn, losses = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        images = torch.rand(2, 4, 3, 8, 8, generator=drawn).cuda().repeat_interleave(8, -1)
        images = images.repeat_interleave(8, -2)
        cameras = random_images(2, 0)[1]
        with torch.autocast("cuda", torch.bfloat16):
            raw = net.splat_map(net.network_input(images, cameras))
        wanted = images[..., ::2, ::2]
        loss = (raw[:, :, 11:].float().sigmoid() - wanted).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return torch.stack(losses).cpu()


def test_two_hundred_steps_differ_by_less_than_two_seeds():
    eager, other, fast = train("eager", 0), train("eager", 1), train("fast", 0)
    between_speeds, between_seeds = ((eager - x)[-50:].abs().mean() for x in (fast, other))
    print(f"mean difference of the last 50 losses: speeds {between_speeds:.2e}, seeds {between_seeds:.2e}")
    assert eager[-50:].mean() < 0.8 * eager[:10].mean(), "nothing was learned"
    assert between_speeds <= between_seeds


@pytest.mark.parametrize("kernels", ["plain", "auto"])
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_graph_replays_on_new_images_and_other_shapes(dtype, compile, kernels, any_shape):
    reference = make_net(**SHAPE).cuda()
    fast = FastLGM(make_net(**SHAPE, kernels=kernels).cuda().in_half(dtype), compile=compile, graph=True)
    kept = []
    for scenes, seed in ((1, 0), (1, 1), (2, 2), (1, 3)):
        batch = random_images(scenes, seed)
        with torch.no_grad():
            expected = reference(*batch).means
        gaussians = fast(*batch)
        assert gaussians.packed().dtype == torch.float32
        assert (gaussians.means - expected).abs().max() < (5e-3 if dtype == torch.float16 else 3e-2)
        kept.append((gaussians, gaussians.packed().clone()))
    # What a call has given is not what the next one writes to.
    assert all(torch.equal(gaussians.packed(), before) for gaussians, before in kept)
    assert not torch.backends.cudnn.benchmark
