"""Training at speed=fast and at speed=eager: losses differ by less than between two seeds. 200 steps of the
U-Net, on a GPU: tests/gpu/test_fast_gpu.py."""

import torch

from lgm.kernels import Conv2d, GroupNorm, use_kernels
from lgm.kernels import convolution as convolution_module
from lgm.models.blocks import ResnetBlock
from tests.interpreter import needs_interpreter

needs_interpreter()
STEPS, LAST = 3, 2
CHANNELS = 32  # of GroupNorm's groups


def train(kernels: str, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        Conv2d(4, CHANNELS, 1), ResnetBlock(CHANNELS, CHANNELS, skip_scale=0.7), Conv2d(CHANNELS, 4, 1)
    )
    use_kernels(net, kernels)
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=1e-2), []
    for _ in range(STEPS):
        x = torch.randn(1, 4, 2, 2)
        loss = (net(x) - x).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses)


def test_losses_differ_by_less_than_two_seeds(monkeypatch):
    monkeypatch.setattr(GroupNorm, "is_fused", lambda self, x: self.fuse)
    monkeypatch.setattr(convolution_module, "kernels_run", lambda x: True)
    eager, fast, other = train("plain", 0), train("auto", 0), train("plain", 1)
    assert not torch.equal(eager, fast), "the same operations computed both"
    between_speeds, between_seeds = ((eager - x)[-LAST:].abs().mean() for x in (fast, other))
    assert between_speeds < 0.05 * between_seeds
