"""Fused residual blocks and convolutions on a GPU, against float64 and against PyTorch's own."""

import copy

import pytest
import torch

from lgm.kernels import Conv2d, double_and_convolve, use_kernels
from lgm.models.blocks import ResnetBlock
from lgm.models.unet import UNet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")


def results(module, x, cotangent, dtype, *args):
    module, leaf = copy.deepcopy(module), x.clone().requires_grad_()
    if dtype == torch.float64:
        module, leaf = module.double(), x.double().requires_grad_()
    with torch.autocast("cuda", dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
        y = module(leaf.to(dtype) if isinstance(module, ResnetBlock) else leaf, *args)
    y.backward(cotangent.to(y.dtype))
    grads = {name: p.grad for name, p in module.named_parameters()}
    return {"y": y.detach(), "x": leaf.grad, **grads}


def check(module, x, dtype, *args):
    """Fused, no result is farther from float64's than PyTorch's own of that precision."""
    module = module.cuda()
    for parameter in module.parameters():
        parameter.data += 0.1 * parameter.data.std() * torch.randn_like(parameter)
    cotangent = torch.randn_like(module(x, *args))
    exact = results(module, x, cotangent, torch.float64, *args)
    found = {}
    for choice in ("plain", "auto"):
        use_kernels(module, choice)
        found[choice] = results(module, x, cotangent, dtype, *args)
    # A bias before a norm over few channels hardly counts: its gradient is what rounding leaves.
    least = {True: 1e-5, False: torch.finfo(dtype).eps}[dtype == torch.float32]
    scale = max(grad.norm() for name, grad in exact.items() if name.endswith("bias"))
    for name, true in exact.items():
        plain, ours = ((found[choice][name] - true).norm() for choice in ("plain", "auto"))
        floor = max(true.norm(), scale if name.endswith("bias") else 0)
        assert ours <= 1.25 * plain + least * floor, (name, ours.item(), plain.item(), true.norm().item())


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("channels", "shape"),
    [
        ((64, 64), (4, 64, 96, 96)),
        ((192, 128), (3, 192, 33, 17)),
        ((1024, 1024), (2, 1024, 8, 8)),
        ((384, 128), (4, 384, 64, 64)),
    ],
)
def test_a_block(channels, shape, dtype):
    check(ResnetBlock(*channels, 0.7), torch.randn(shape, device="cuda"), dtype)


class Joined(ResnetBlock):
    """Whose input is two maps."""

    def forward(self, x):
        return super().forward(x[:, :96], x[:, 96:])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_block_on_a_skip(dtype):
    check(Joined(224, 64, 0.7), torch.randn(4, 224, 40, 24, device="cuda"), dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    "layer", [(9, 64, 3, 1, 1), (64, 128, 3, 2, 1), (128, 14, 3, 1, 1), (256, 256, 3, 1, 1)]
)
def test_a_convolution(layer, dtype):
    check(Conv2d(*layer), torch.randn(4, layer[0], 48, 40, device="cuda"), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_u_net(dtype):
    net = UNet(9, 14, [64, 128, 192], [False, False, True], True, [192, 128], [True, False])
    check(net, torch.randn(8, 9, 32, 32, device="cuda"), dtype, 4)


def test_the_same_bits_each_time():
    block = ResnetBlock(64, 128, 0.7).cuda()
    use_kernels(block, "auto")
    x, cotangent = torch.randn(4, 64, 64, 64, device="cuda"), torch.randn(4, 128, 64, 64, device="cuda")
    first, second = (results(block, x, cotangent, torch.bfloat16) for _ in range(2))
    # cuDNN's weight gradients are added in any order.
    assert all(torch.equal(first[name], second[name]) for name in first if not name.endswith("weight"))
    assert torch.equal(first["norm1.weight"], second["norm1.weight"])


class Doubled(torch.nn.Module):
    def __init__(self, *channels):
        super().__init__()
        self.layer = Conv2d(*channels, 3, padding=1)

    def forward(self, x):
        return double_and_convolve(x, self.layer)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("channels", "shape"), [((64, 64), (4, 64, 48, 80)), ((256, 192), (9, 256, 31, 33))])
def test_upsampling_and_convolution_as_one(channels, shape, dtype):
    check(Doubled(*channels), torch.randn(shape, device="cuda"), dtype)
