"""Fused norms on a GPU: exact, the same bits each time, in any precision, faster and smaller."""

import pytest
import torch
import torch.nn.functional as F

from lgm.cameras import Cameras
from lgm.kernels import fused_group_norm, use_kernels
from lgm.models import LGM

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
SHAPES = [
    (6, 32, 128, 128),
    (6, 192, 32, 32),
    (2, 96, 5, 7),
    (3, 2048, 8, 8),
    (1, 64, 512, 512),
    (2, 32, 1, 1),
]


def operands(shape, dtype):
    channels = shape[1]
    x = (2 * torch.randn(shape, device="cuda") + 0.3).to(dtype)
    return x, 1 + 0.5 * torch.randn(channels, device="cuda"), 0.5 * torch.randn(channels, device="cuda")


def run(function, values, cotangent):
    values = [v.detach().requires_grad_() for v in values]
    y = function(*values)
    y.backward(cotangent.to(y.dtype))
    return [y.detach(), *(v.grad for v in values)]


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_against_float64(shape, dtype, silu):
    x, weight, bias = operands(shape, dtype)
    cotangent = torch.randn(shape, device="cuda").to(dtype)
    ours = run(lambda *v: fused_group_norm(*v, 32, 1e-5, silu), (x, weight, bias), cotangent)

    def exact(x, weight, bias):
        y = F.group_norm(x, 32, weight, bias, 1e-5)
        return F.silu(y) if silu else y

    theirs = run(exact, [v.double() for v in (x, weight, bias)], cotangent.double())
    steps = torch.finfo(dtype).eps
    # A group of one number has no gradient: terms as large as this cancel.
    deviations = x.double().unflatten(1, (32, -1)).var(dim=(2, 3, 4), unbiased=False).add(1e-5).sqrt()
    cancelling = (cotangent * weight[:, None, None]).abs().amax() / deviations.amin()
    for name, mine, true in zip(("y", "x", "weight", "bias"), ours, theirs, strict=True):
        assert mine.dtype == (torch.float32 if name in ("weight", "bias") else dtype)
        scale = torch.maximum(true.abs().amax(), cancelling) if name == "x" else true.abs().amax()
        # Such a group is normalised to nothing: of the weight's gradient only float64's rounding is left.
        assert (mine.double() - true).abs().max() <= (4 * steps + 1e-5) * scale + 1e-12, name


def test_the_same_bits_each_time():
    values = operands(SHAPES[0], torch.bfloat16)
    cotangent = torch.randn(SHAPES[0], device="cuda")
    runs = [run(lambda *v: fused_group_norm(*v, 32, 1e-5, True), values, cotangent) for _ in range(3)]
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


def network_gradients(net, images, cameras):
    net.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    with torch.autocast("cuda", torch.bfloat16):
        raw = net.splat_map(net.network_input(images, cameras))
    raw.float().square().mean().backward()
    return raw.detach().float(), [p.grad.clone() for p in net.parameters()], torch.cuda.max_memory_allocated()


def test_a_network_is_the_same_and_smaller(any_shape):
    torch.manual_seed(0)
    net = LGM([32, 64, 128], [False, False, True], True, [128, 64], [True, False], 128).cuda()
    images = torch.rand(4, 4, 3, 128, 128, device="cuda")
    cameras = Cameras.orbit([0.0] * 4, [0.0, 90, 180, 270])
    cameras = Cameras(*(v.cuda()[None].expand(4, -1, -1, -1) for v in (cameras.c2w, cameras.K_norm)))
    found = {}
    for choice in ("plain", "auto"):
        use_kernels(net, choice)
        found[choice] = network_gradients(net, images, cameras)
    (plain, plain_grads, plain_bytes), (ours, grads, our_bytes) = found["plain"], found["auto"]
    assert (ours - plain).norm() < 0.02 * plain.norm()  # bf16 has three digits, and sums have another order
    total = torch.cat([g.flatten() for g in plain_grads])
    assert (torch.cat([g.flatten() for g in grads]) - total).norm() < 0.05 * total.norm()
    assert our_bytes < 0.8 * plain_bytes


def test_it_is_recorded_in_a_graph():
    x, weight, bias = operands(SHAPES[1], torch.float16)
    with torch.no_grad():
        expected = fused_group_norm(x, weight, bias, 32, 1e-5, True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = fused_group_norm(x, weight, bias, 32, 1e-5, True)
        y.zero_()
        graph.replay()
    assert torch.equal(y, expected)
