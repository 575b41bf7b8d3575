"""Training through CUDA graphs against training without."""

import copy

import pytest
import torch

from lgm.kernels import cudnn_benchmark
from lgm.models import LGM
from lgm.models.graphs import TrainingGraphs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
SHAPE = {"down_channels": (64, 128), "down_attention": (False, True), "mid_attention": True}
SHAPE |= {"up_channels": (128, 64), "up_attention": (True, False), "input_size": 32, "kernels": "auto"}


def networks():
    torch.manual_seed(0)
    plain = LGM(**SHAPE).cuda()
    replayed = copy.deepcopy(plain)
    replayed.graphs = TrainingGraphs()
    return plain, replayed


def inputs(count, size=32):
    return torch.randn(count, 4, 9, size, size, device="cuda")


def train(net, batches, accumulation=1, dtype=torch.bfloat16):
    """Losses of each batch; the last gradients stay."""
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True), []
    for number, x in enumerate(batches):
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            loss = net.splat_map(x).float().square().mean()
        loss.backward()
        losses.append(loss.item())
        if (number + 1) % accumulation == 0 and number + 1 < len(batches):
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return losses, torch.cat([p.grad.flatten() for p in net.parameters()])


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_losses_and_gradients_are_the_same(accumulation, search):
    """search: also where cuDNN times its kernels, as in training at speed=fast."""
    plain, replayed = networks()
    batches = [inputs(2) for _ in range(6)]
    losses, grads = train(plain, batches, accumulation)
    with cudnn_benchmark(search):
        ours, our_grads = train(replayed, batches, accumulation)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(losses), rtol=2e-3, atol=0)
    # cuDNN adds weight gradients in any order, and six steps of AdamW have made more of that.
    assert (our_grads - grads).norm() < 0.05 * grads.norm()


def test_other_shapes_frozen_weights_and_no_gradient(any_shape):
    plain, replayed = networks()
    for x in (inputs(2), inputs(1), inputs(1, 48)):
        results = []
        for net in (plain, replayed):
            net.zero_grad()
            y = net.splat_map(x)
            y.square().mean().backward()
            with torch.no_grad():
                torch.testing.assert_close(net.splat_map(x), y, rtol=1e-3, atol=1e-4)
            results.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.requires_grad]))
        assert (results[0] - results[1]).norm() < 1e-3 * results[0].norm()
        for net in (plain, replayed):
            net.unet.conv_in.weight.requires_grad_(False)
            net.unet.conv_in.weight.grad = None
    assert replayed.unet.conv_in.weight.grad is None


def test_a_second_forward_pass_before_the_backward_pass_is_refused():
    _, replayed = networks()
    x = inputs(1)
    first, _ = replayed.splat_map(x), replayed.splat_map(x)
    with pytest.raises(RuntimeError, match=r"train.graph=false"):
        first.sum().backward()


def test_a_copy_records_its_own():
    _, replayed = networks()
    x = inputs(1)
    replayed.splat_map(x).sum().backward()
    other = copy.deepcopy(replayed)
    other.zero_grad()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(other.splat_map(x), replayed.splat_map(x))
