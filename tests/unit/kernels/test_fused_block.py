"""Fused residual blocks and convolutions against PyTorch's own in float64, through Triton's interpreter."""

import copy

import pytest
import torch
import torch.nn.functional as F

from lgm.kernels import Conv2d, GroupNorm, double, double_and_convolve
from lgm.kernels import convolution as convolution_module
from lgm.kernels import upsample as upsample_module
from lgm.kernels.convolution import as_parameter, half_copy
from lgm.kernels.norm import norm_backward, norm_forward
from lgm.kernels.residual import channel_sums, scaled_sum
from lgm.models import blocks as blocks_module
from lgm.models.blocks import ResnetBlock
from tests.interpreter import needs_interpreter

needs_interpreter()


@pytest.fixture
def interpreted(monkeypatch):
    """All that can be fused is, where float64 is not at work."""
    monkeypatch.setattr(GroupNorm, "is_fused", lambda self, x: x.dtype != torch.float64)
    monkeypatch.setattr(convolution_module, "kernels_run", lambda x: x.dtype != torch.float64)


def channels_last(shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def both(module, x, *args):
    """Results and gradients, by x first: fused, and in float64 as PyTorch computes them."""
    for layer in module.modules():
        if hasattr(layer, "fuse"):
            layer.fuse = True
    found, cotangent = [], None
    for dtype in (torch.float32, torch.float64):
        network, leaf = copy.deepcopy(module).to(dtype), x.to(dtype, copy=True).requires_grad_()
        y = network(leaf, *args)
        cotangent = torch.randn_like(y) if cotangent is None else cotangent
        y.backward(cotangent.to(dtype))
        named = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
        found.append({"y": y.detach(), "x": leaf.grad, **named})
    return found


def assert_near(ours, exact):
    assert ours.keys() == exact.keys()
    scale = max(grad.norm() for grad in exact.values()).float()
    for name, mine in ours.items():
        error = (mine - exact[name]).norm()
        # A bias before a norm over few channels hardly counts: its gradient is what rounding leaves.
        assert error < 1e-5 * exact[name].norm() + 1e-7 * scale, name


@pytest.mark.parametrize(("channels", "shape"), [((32, 32), (2, 32, 5, 7)), ((32, 64), (1, 32, 6, 6))])
def test_a_block(channels, shape, interpreted):
    torch.manual_seed(0)
    block = ResnetBlock(*channels, 0.7)
    for parameter in block.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    assert_near(*both(block, torch.randn(shape)))


@pytest.mark.parametrize("narrow", [32, 128], ids=["weight gradient in blocks", "at once"])
def test_a_block_on_a_skip(narrow, interpreted, monkeypatch):
    """Which norms' groups do not end where it begins; its first weight has three times as many channels in as
    out."""
    calls, convolve_back = [], torch.ops.aten.convolution_backward
    monkeypatch.setattr(convolution_module, "_NARROW", narrow)
    monkeypatch.setattr(
        torch.ops.aten, "convolution_backward", lambda *args: calls.append(args) or convolve_back(*args)
    )

    class Joined(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = ResnetBlock(96, 32, 0.7)

        def forward(self, x):
            return self.block(x[:, :40], x[:, 40:])

    assert_near(*both(Joined(), torch.randn(1, 96, 3, 5)))
    widths = [weight.shape[1] for _, _, weight, *_, mask in calls if mask[1] and weight.shape[2] == 3]
    assert sorted(widths) == ([32] * 4 if narrow == 32 else [32, 96])


def test_frozen_parameters_get_no_gradient(interpreted):
    block = ResnetBlock(32, 64, 0.7)
    for parameter in (block.conv1.weight, block.norm2.bias, block.shortcut.bias):
        parameter.requires_grad_(False)
    assert_near(*both(block, torch.randn(1, 32, 4, 4)))


@pytest.mark.parametrize("layer", [(9, 32, 3, 1, 1), (32, 48, 3, 2, 1), (48, 14, 3, 1, 1), (16, 8, 1, 1, 0)])
def test_a_convolution(layer, interpreted):
    assert_near(*both(Conv2d(*layer), torch.randn(2, layer[0], 6, 6)))


@pytest.mark.parametrize("shape", [(2, 32, 3, 5), (1, 70, 1, 40)])
def test_upsampling(shape, monkeypatch):
    monkeypatch.setattr("lgm.kernels.resize.kernels_run", lambda x: True)
    x, results = torch.randn(shape), []
    cotangent = torch.randn(*shape[:2], 2 * shape[2], 2 * shape[3])
    for fuse in (False, True):
        leaf = x.clone().requires_grad_()
        y = double(leaf, fuse)
        y.backward(cotangent)
        results.append((y.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[1][1], results[0][1])
    with torch.autocast("cpu", torch.bfloat16):
        half = double(x.bfloat16(), True)
    assert half.dtype == torch.bfloat16 and torch.equal(half.float(), double(x.bfloat16().float(), False))


class Doubled(torch.nn.Module):
    def __init__(self, *channels):
        super().__init__()
        self.layer = Conv2d(*channels, 3, padding=1)

    def forward(self, x):
        return double_and_convolve(x, self.layer)


@pytest.mark.parametrize(("channels", "shape"), [((8, 20), (2, 8, 3, 5)), ((3, 130), (1, 3, 1, 2))])
def test_upsampling_and_convolution(channels, shape, interpreted, monkeypatch):
    monkeypatch.setattr(upsample_module, "_LEAST_PIXELS", 1)
    monkeypatch.setattr(upsample_module, "kernels_run", lambda x: x.dtype != torch.float64)
    monkeypatch.setattr("lgm.kernels.resize.kernels_run", lambda x: pytest.fail("it was doubled"))
    monkeypatch.setattr(
        upsample_module, "double", lambda x, fuse: F.interpolate(x, scale_factor=2.0, mode="nearest")
    )
    assert_near(*both(Doubled(*channels), torch.randn(shape)))


def test_a_norm_gives_the_precision_that_is_asked_for(interpreted):
    norm, x = GroupNorm(4, 8, 1e-5, silu=True), torch.randn(1, 8, 3, 3).bfloat16()
    ours = norm(x, torch.float32)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, copy.deepcopy(norm).double()(x.double()).float())


@pytest.mark.parametrize("shape", [(2, 64, 5, 7), (1, 192, 3, 3), (1, 4, 40, 40)])
def test_the_norm_of_a_convolution_without_its_bias(shape, monkeypatch):
    monkeypatch.setattr("lgm.kernels.norm._PROGRAMS", 4)  # so that one goes through several blocks
    x, channels = channels_last(shape), shape[1]
    values = [1 + 0.5 * torch.randn(channels), torch.randn(channels), 3 * torch.randn(channels)]
    exact = [tensor.double().requires_grad_() for tensor in (x, *values)]
    y = F.silu(F.group_norm(exact[0] + exact[3][:, None, None], 4, *exact[1:3], 1e-5))
    cotangent, added = channels_last(shape), channels_last(shape)
    y.backward(cotangent.double())
    ours, moments = norm_forward(x, *values, 4, 1e-5, True, torch.float32)
    again = torch.full_like(ours, torch.nan)
    scales = {"scale": 0.5, "added_scale": 0.25}
    grads = norm_backward(2 * cotangent, x, *values, moments, True, added, again=again, **scales)
    torch.testing.assert_close(ours, y.detach().float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, ours)
    torch.testing.assert_close(grads[0], exact[0].grad.float() + 0.25 * added, rtol=1e-5, atol=1e-5)
    for mine, tensor in zip(grads[1:4], exact[1:], strict=True):
        torch.testing.assert_close(mine, tensor.grad.float(), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("shape", [(2, 64, 5, 7), (1, 14, 3, 3), (2, 200, 20, 20)])
def test_sums(shape, monkeypatch):
    monkeypatch.setattr("lgm.kernels.residual._PROGRAMS", 1)
    x, added, bias = channels_last(shape), channels_last(shape), torch.randn(shape[1])
    torch.testing.assert_close(scaled_sum(x, added, bias, 0.7), (x + added + bias[:, None, None]) * 0.7)
    torch.testing.assert_close(channel_sums(x), x.sum((0, 2, 3)), rtol=1e-5, atol=1e-4)
    expected = x + bias[:, None, None]
    assert scaled_sum(x, None, bias, in_place=True) is x and torch.equal(x, expected)


@pytest.mark.parametrize("shape", [(3, 70, 3, 3), (2, 64, 3, 3), (3, 5, 3, 3), (4, 80, 1, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_weights_and_their_gradients_change_layout_and_precision(shape, memory_format):
    weight = torch.randn(shape).contiguous(memory_format=memory_format)
    own = half_copy(weight, torch.float16)
    assert own.is_contiguous(memory_format=torch.channels_last) and torch.equal(own, weight.half())
    for grad in (own, own.contiguous()):
        back = as_parameter(grad, weight, 0.5)
        assert back.stride() == weight.stride() and torch.equal(back, 0.5 * weight.half().float())
        assert torch.equal(as_parameter(grad, weight), weight.half().float())


def test_half_precision_sums_are_rounded_once():
    x, added, bias = channels_last((1, 8, 4, 4)).half(), channels_last((1, 8, 4, 4)).half(), torch.randn(8)
    exact = (x.double() + added.double() + bias.double()[:, None, None]) * 0.7
    assert ((scaled_sum(x, added, bias, 0.7) - exact).abs() <= exact.abs() * 2**-10.9 + 1e-7).all()


def test_a_block_of_another_precision_is_not_one_operation(interpreted, monkeypatch):
    """Its sum would be: PyTorch's promotes."""
    monkeypatch.setattr(blocks_module, "fused_resnet_block", lambda *_: pytest.fail("fused"))
    with torch.autocast("cpu", torch.bfloat16):
        ResnetBlock(32, 32, 0.7)(torch.randn(1, 32, 4, 4))
