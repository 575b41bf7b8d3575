"""LPIPS against the `lpips` package: its numbers in a golden file, and itself where it imports."""

import pytest
import torch

from lgm.losses.perceptual import LPIPS
from tests.kinks import error_but_for_ties
from tests.perceptual_weights import needs_linear_weights

pytestmark = needs_linear_weights


def theirs(net: str, ours: LPIPS) -> torch.nn.Module:
    """The package's own module with the trunk that ours has."""
    try:
        import lpips
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"the lpips package does not import here: {error}")
    module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    weights = {
        name.removeprefix("features."): tensor for name, tensor in ours._frozen[0].state_dict().items()
    }
    for index in range(1, 6):
        part = getattr(module.net, f"slice{index}")
        part.load_state_dict({name: weights[name] for name in part.state_dict()})
    return module


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"),
    reason="without AVX2 torch.randn rounds the weights of the golden file's recipe otherwise",
)
def test_golden(golden, perceptual, place):
    """The file's gradient is of the second image; here either place is as good."""
    tensors, _ = golden("lpips_vgg")
    images, other = ((tensors["b"] + 1) / 2).requires_grad_(), (tensors["a"] + 1) / 2
    expected = tensors["grad_b"] * 2  # of images in -1..1
    network = LPIPS()

    def error() -> float:
        distance = network(*((other, images) if place else (images, other)))
        torch.testing.assert_close(distance, tensors["lpips"].flatten(), rtol=1e-5, atol=0)
        (gradient,) = torch.autograd.grad(distance.sum(), images)
        return float((gradient - expected).norm() / expected.norm())

    trunk = network._frozen[0].features
    assert error_but_for_ties(trunk, network.standardised(images.detach()), error, 1e-5) <= 1e-5


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_equal_to_the_package(net, perceptual):
    ours = LPIPS(net)
    package = theirs(net, ours)
    images, targets = torch.rand(2, 3, 3, 64, 48).unbind()
    gradients = []
    for call in (ours, lambda x, y: package(x, y, normalize=True).flatten()):
        leaf = images.clone().requires_grad_()
        distance = call(leaf, targets)
        gradients.append((distance.detach(), *torch.autograd.grad(distance.sum(), leaf)))
    (value, gradient), (their_value, their_gradient) = gradients
    torch.testing.assert_close(value, their_value, rtol=1e-5, atol=0)
    assert (gradient - their_gradient).norm() <= 1e-4 * their_gradient.norm()
