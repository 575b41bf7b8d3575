"""A VGG's distance and its gradient by fused kernels against PyTorch's own, through Triton's interpreter."""

import pytest
import torch
import torch.nn.functional as F

from lgm.kernels import use_kernels
from lgm.kernels.distance import add_pool_gradient, fused_distance, fused_max_pool
from lgm.losses.perceptual import LPIPS
from lgm.losses.perceptual import features as features_module
from lgm.losses.perceptual import fused as fused_module
from lgm.losses.perceptual.features import _EPS
from tests.interpreter import needs_interpreter
from tests.kinks import away_from_kinks
from tests.perceptual_weights import needs_linear_weights

needs_interpreter()


def feature_maps(shape):
    """As a ReLU gives them: half of the numbers 0, and pixels where all channels are."""
    maps = torch.randn(shape).relu()
    maps[:, :, 0, 0] = 0
    return maps


def layer_distance(x, y, weight):
    """In float64, where the loss's own is float32."""
    u, v = (maps / (torch.linalg.vector_norm(maps, dim=1, keepdim=True) + _EPS) for maps in (x, y))
    return ((u - v).square().mean(dim=(2, 3)) * weight).sum(dim=1)


@pytest.mark.parametrize(
    "shape",
    [
        (2, 64, 8, 8),
        (1, 48, 5, 7),  # no power of two of channels, an odd number of pixels
        (3, 512, 3, 3),
        (1, 4, 100, 90),  # several blocks of pixels, the last not full
    ],
)
def test_a_layers_distance_and_gradient(shape):
    x, y, weight = feature_maps(shape), feature_maps(shape), torch.rand(shape[1])
    before = (
        x.double().requires_grad_()
    )  # what the ReLU is given: its gradient is 0 where that is not positive
    exact = layer_distance(before.relu(), y.double(), weight.double())
    exact.sum().backward()
    distance, grad = fused_distance(x, y, weight, _EPS, 1024.0)
    torch.testing.assert_close(distance, exact.detach().float(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(grad / 1024, before.grad.float(), rtol=1e-4, atol=1e-7)
    assert fused_distance(x, y, weight, _EPS)[1] is None


def test_equal_maps_are_at_no_distance_and_have_no_gradient():
    x = feature_maps((1, 64, 4, 4))
    distance, grad = fused_distance(x, x.clone(), torch.rand(64), _EPS, 1.0)
    assert distance.eq(0).all() and grad.eq(0).all()


@pytest.mark.parametrize("shape", [(2, 64, 8, 8), (1, 96, 7, 5), (1, 3, 2, 2)])
def test_pooling_and_its_gradient(shape):
    x = torch.randint(-2, 4, shape).float()  # full of ties
    before = x.clone().requires_grad_()
    exact = F.max_pool2d(before.relu(), 2)
    given, own = torch.randn(exact.shape), torch.randn(shape)
    exact.backward(given)
    assert torch.equal(fused_max_pool(x.relu()), exact.detach())
    grad = own.contiguous(memory_format=torch.channels_last).clone(memory_format=torch.preserve_format)
    add_pool_gradient(grad, x.relu(), given)
    torch.testing.assert_close(grad, own + before.grad)


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr(features_module, "kernels_run", lambda x: True)


@needs_linear_weights
def test_a_networks_distance_and_gradient(perceptual, interpreted, monkeypatch):
    monkeypatch.setattr(fused_module, "_CHUNK_PIXELS", 2 * 18 * 20)  # three images in two chunks
    network = LPIPS()
    drawn: list[torch.Tensor] = []

    def draw() -> torch.Tensor:
        drawn.append(torch.rand(3, 3, 18, 20))
        return network.standardised(drawn[-1])

    away_from_kinks(network._frozen[0].features, draw)
    images, targets = drawn[-1], torch.rand(3, 3, 18, 20)
    found = []
    for fuse in (False, True):
        network.fuse = fuse
        leaf = images.clone().requires_grad_()
        distance = network(leaf, targets)
        (grad,) = torch.autograd.grad((distance * torch.tensor([1.0, -2.0, 3.0])).sum(), leaf)
        with torch.no_grad():
            torch.testing.assert_close(network(images, targets), distance)
        found.append((distance.detach(), grad))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-7)
    assert (found[1][1] - found[0][1]).norm() < 1e-3 * found[0][1].norm()


@needs_linear_weights
def test_what_is_not_fused_is_computed_plainly(perceptual, interpreted, monkeypatch):
    """Another trunk, and a target that wants a gradient."""
    monkeypatch.setattr(features_module, "fused_feature_distance", lambda *_: pytest.fail("fused"))
    images, targets = torch.rand(2, 1, 3, 32, 32).unbind()
    for net in ("alex", "vgg"):
        network = LPIPS(net)
        network.fuse = True
        network(images, targets.clone().requires_grad_(net == "vgg"))


@needs_linear_weights
def test_losses_are_switched_as_networks_are(perceptual):
    network = torch.nn.ModuleDict({"lpips": LPIPS()})
    use_kernels(network, "auto")
    assert network["lpips"].fuse
    use_kernels(network, "plain")
    assert not network["lpips"].fuse
