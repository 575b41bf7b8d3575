"""LPIPS on a GPU, where its trunk runs with the channels last."""

import pytest
import torch

from lgm.losses.perceptual import LPIPS
from lgm.metrics.image import lpips
from tests.perceptual_weights import needs_linear_weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
    needs_linear_weights,
]


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_agrees_with_the_cpu(net, perceptual, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network = LPIPS(net)
    images, targets = torch.rand(2, 4, 3, 64, 64).unbind()
    values = {}
    for device in ("cpu", "cuda"):
        leaf = images.to(device, copy=True).requires_grad_()
        distance = network(leaf, targets.to(device))  # moves along by itself
        values[device] = [x.cpu() for x in (distance.detach(), *torch.autograd.grad(distance.sum(), leaf))]
    torch.testing.assert_close(values["cuda"][0], values["cpu"][0], rtol=1e-4, atol=0)
    # Where an activation is nearly 0, rounding decides on which side of the ReLU it lies.
    assert (values["cuda"][1] - values["cpu"][1]).norm() <= 1e-2 * values["cpu"][1].norm()


def test_mixed_precision_is_near(perceptual):
    network = LPIPS().cuda()
    images, targets = torch.rand(2, 4, 3, 128, 128, device="cuda").unbind()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        mixed = network(images, targets)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, network(images, targets), rtol=2e-2, atol=0)


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_the_metric_in_tf32_is_that_of_float32(net, perceptual, monkeypatch):
    network = LPIPS(net).cuda()
    targets = torch.rand(16, 3, 128, 128, device="cuda")
    images = (targets + 0.3 * torch.randn_like(targets)).clamp(0, 1)
    measured = lpips(network, images, targets)
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")
    torch.testing.assert_close(measured, network(images, targets), rtol=2e-3, atol=0)
