"""Fused GroupNorm and SiLU against PyTorch's own, through Triton's interpreter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lgm.kernels import GroupNorm, fused_group_norm, use_kernels
from lgm.models.attention import MultiViewAttention
from lgm.models.blocks import ResnetBlock
from tests.interpreter import needs_interpreter

needs_interpreter()


def both(x, num_groups, silu, eps=1e-5):
    """Results and gradients: ours, and PyTorch's in float64."""
    channels = x.shape[1]
    weight, bias = 1 + 0.5 * torch.randn(channels), 0.5 * torch.randn(channels)
    cotangent = torch.randn(x.shape)
    found = []
    for dtype, fused in ((torch.float32, True), (torch.float64, False)):
        values = [v.to(dtype, copy=True).requires_grad_() for v in (x, weight, bias)]
        if fused:
            y = fused_group_norm(*values, num_groups, eps, silu)
        else:
            y = F.group_norm(values[0], num_groups, *values[1:], eps)
            y = F.silu(y) if silu else y
        y.backward(cotangent.to(dtype))
        found.append([y.detach(), *(v.grad for v in values)])
    return found


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize(
    ("shape", "num_groups"),
    [
        ((2, 32, 8, 8), 32),  # a channel a group
        ((2, 64, 16, 16), 32),
        ((1, 96, 5, 7), 32),  # three a group, an odd number of pixels
        ((3, 192, 4, 4), 32),  # more channels than a program takes
        ((1, 4, 40, 40), 2),  # several blocks of pixels, the last not full
        ((2, 8, 1, 1), 2),
        ((1, 4, 80, 80), 2),  # more rows of sums than are added at once, with _SUMS as below
    ],
)
def test_results_and_gradients(shape, num_groups, silu, monkeypatch):
    monkeypatch.setattr("lgm.kernels.norm._PROGRAMS", 4)  # so that one goes through several blocks
    monkeypatch.setattr("lgm.kernels.norm._SUMS", 4)
    ours, theirs = both(torch.randn(shape) * 2 + 0.3, num_groups, silu)
    for name, mine, exact in zip(("y", "x", "weight", "bias"), ours, theirs, strict=True):
        # What goes to weights are sums over up to 1,600 products.
        atol = 1e-4 if name in ("weight", "bias") else 1e-5
        torch.testing.assert_close(mine, exact.float(), rtol=1e-5, atol=atol)


def test_a_mean_far_from_zero_cancels_nothing():
    ours, theirs = both(torch.randn(1, 32, 64, 64) + 1000, 16, True)
    torch.testing.assert_close(ours[0], theirs[0].float(), rtol=1e-3, atol=1e-3)


def test_half_precision_is_rounded_once():
    """As autocast's own way, through float32, rounds for the next convolution."""
    x = torch.randn(2, 64, 8, 8).half()
    weight, bias = torch.rand(64), torch.rand(64)
    exact = F.silu(F.group_norm(x.float(), 32, weight, bias))
    with torch.autocast("cpu", torch.float16):
        y = fused_group_norm(x, weight, bias, 32, 1e-5, True)
    assert y.dtype == torch.float16 and y.is_contiguous(memory_format=torch.channels_last)
    assert (y == exact.half()).float().mean() > 0.99
    assert ((y.float() - exact).abs() / exact.abs().clamp_min(1e-2)).max() < 2**-10.9


def test_blocks_of_the_network_are_the_same_either_way(monkeypatch):
    x = torch.randn(2, 32, 2, 4)
    blocks = nn.ModuleList([ResnetBlock(32, 64, 0.7), MultiViewAttention(64, 0.7)])
    found = []
    for fused in (False, True):
        monkeypatch.setattr(GroupNorm, "is_fused", lambda self, x, fused=fused: fused)
        blocks.zero_grad()
        y = blocks[1](blocks[0](x), 2)
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad for p in blocks.parameters())])
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_norms_of_a_network_are_switched_together():
    block = ResnetBlock(32, 32, 0.7)
    use_kernels(block, "plain")
    assert not block.norm1.fuse and not block.norm2.fuse
    use_kernels(block, "auto")
    assert block.norm1.fuse
    with pytest.raises(ValueError, match="kernels='fast' is not one of auto, plain"):
        use_kernels(block, "fast")


def test_on_a_cpu_pytorch_computes_them():
    block = ResnetBlock(32, 32, 0.7)
    use_kernels(block, "auto")
    assert not block.norm1.is_fused(torch.zeros(1, 32, 4, 4))
