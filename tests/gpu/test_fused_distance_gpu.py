"""A perceptual distance by fused kernels on a GPU: near float64, faster, in any precision, smaller."""

import pytest
import torch

from lgm.losses.perceptual import LPIPS
from tests.perceptual_weights import needs_linear_weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
    needs_linear_weights,
]


def measured(network, images, targets, dtype):
    """Distances, their gradients with other factors for each image, and the peak of memory."""
    leaf = images.clone().requires_grad_()
    factors = torch.linspace(-1, 2, len(images), device="cuda", dtype=images.dtype)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.autocast("cuda", dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
        distance = network(leaf, targets)
    (grad,) = torch.autograd.grad((distance * factors).sum(), leaf)
    return distance.detach(), grad, torch.cuda.max_memory_allocated() - before


@pytest.fixture
def pairs():
    targets = torch.rand(5, 3, 130, 134, device="cuda")
    return (targets + 0.2 * torch.randn_like(targets)).clamp(0, 1), targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_near_float32_and_no_farther_than_the_plain_one(dtype, perceptual, pairs, monkeypatch):
    monkeypatch.setattr("lgm.losses.perceptual.fused._CHUNK_PIXELS", 2 * 130 * 134)
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")
    network = LPIPS().cuda()
    exact = measured(network, *pairs, torch.float32)
    plain = measured(network, *pairs, dtype)
    network.fuse = True
    fused = measured(network, *pairs, dtype)
    for name, ours, theirs, true in zip(("distance", "gradient"), fused, plain, exact, strict=False):
        error, other = ((value - true).norm() / true.norm() for value in (ours, theirs))
        # Where an activation is nearly 0, rounding decides on which side of the ReLU it lies.
        assert error <= 1.2 * other + 3e-3, (name, error.item(), other.item())


def test_the_same_bits_each_time_and_equal_images_at_no_distance(perceptual, pairs):
    network = LPIPS().cuda()
    network.fuse = True
    first, second = (measured(network, *pairs, torch.bfloat16) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    distance, grad, _ = measured(network, pairs[1], pairs[1], torch.bfloat16)
    assert distance.eq(0).all() and grad.eq(0).all()


def test_it_takes_less_memory(perceptual):
    network = LPIPS().cuda()
    pairs = torch.rand(2, 64, 3, 128, 128, device="cuda").unbind()
    needed = {}
    for network.fuse in (False, True):
        measured(network, *pairs, torch.bfloat16)
        needed[network.fuse] = measured(network, *pairs, torch.bfloat16)[2]
    assert needed[True] < 0.6 * needed[False]
