"""A VGG trunk's distance and its gradient in one go, for GPUs: the fast twin of `FeatureDistance`'s loop.

The gradient of a distance by its image depends on nothing that comes after it but for one factor an image.
So it is computed at once, in chunks of images: of a chunk's activations nothing is stored for the backward
pass, which only multiplies.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lgm.kernels.distance import (
    add_pool_gradient,
    conv_relu,
    conv_relu_gradient,
    fused_distance,
    fused_max_pool,
)
from lgm.losses.perceptual.trunks import Trunk

_CHUNK_PIXELS = 1 << 21  # 32 images of 256²: enough for any GPU, a gigabyte of activations in bf16
_INPUT_CHANNELS = 16  # cuDNN convolves as many zeros in less time than three channels alone

Stage = list[tuple[Tensor, Tensor]]  # kernel and bias of each convolution from a pooling to the next tap


def vgg_stages(trunk: Trunk, dtype: torch.dtype) -> list[Stage] | None:
    """The convolutions of a trunk in that precision, by stages between 2×2 poolings, each with a tap at its
    end; None for a trunk that is built otherwise."""
    stages: list[Stage] = []
    for number, block in enumerate(trunk.blocks()):
        pools, layers = list(block[: min(number, 1)]), list(block[min(number, 1) :])
        convolutions, relus = layers[::2], layers[1::2]
        if (
            not all(isinstance(pool, nn.MaxPool2d) and pool.kernel_size == pool.stride == 2 for pool in pools)
            or not all(_is_plain(convolution) for convolution in convolutions)
            or not all(isinstance(relu, nn.ReLU) for relu in relus)
        ):
            return None
        stages.append(
            [
                (layer.weight.to(dtype, memory_format=torch.channels_last), layer.bias.to(dtype))
                for layer in convolutions
            ]
        )
    kernel, bias = stages[0][0]
    # Padded with zeros, which add nothing to the first convolution.
    spare = _INPUT_CHANNELS - kernel.shape[1]
    kernel = F.pad(kernel, (0, 0, 0, 0, 0, spare)).contiguous(memory_format=torch.channels_last)
    stages[0][0] = (kernel, bias)
    return stages


def _is_plain(layer: nn.Module) -> bool:
    expected = ((3, 3), (1, 1), (1, 1))
    return isinstance(layer, nn.Conv2d) and (layer.kernel_size, layer.stride, layer.padding) == expected


def fused_feature_distance(
    x: Float[Tensor, "M 3 h w"],
    y: Float[Tensor, "M 3 h w"],
    stages: list[Stage],
    weights: list[Float[Tensor, " _"]],
    eps: float,
) -> Float[Tensor, " M"]:
    """As `FeatureDistance` computes it, in the stages' precision. Only x gets a gradient."""
    return _Distance.apply(x, y, stages, weights, eps, x.requires_grad and torch.is_grad_enabled())


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        stages: list[Stage],
        weights: list[Tensor],
        eps: float,
        needs_gradient: bool,
    ) -> Tensor:
        # Half precision holds a gradient of its features' size, not one that is divided by pixels.
        scale = float(1 << (x.shape[2] * x.shape[3] - 1).bit_length()) if needs_gradient else None
        chunk = max(1, _CHUNK_PIXELS // (x.shape[2] * x.shape[3]))
        # Chunks bound the activations in memory; only the images' own gradients are stored.
        results = [
            _chunk(a, b, stages, weights, eps, scale)
            for a, b in zip(x.split(chunk), y.split(chunk), strict=True)
        ]
        if needs_gradient:
            ctx.save_for_backward(torch.cat([grad for _, grad in results]))
        return torch.cat([distance for distance, _ in results])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_distance: Tensor) -> tuple[Tensor | None, ...]:
        (grad_x,) = ctx.saved_tensors
        return grad_x * grad_distance.view(-1, 1, 1, 1), None, None, None, None, None


def _chunk(
    x: Tensor, y: Tensor, stages: list[Stage], weights: list[Tensor], eps: float, scale: float | None
) -> tuple[Tensor, Tensor | None]:
    """Distances of some images, and their gradient by x where a scale to compute it with is given."""
    dtype, channels = stages[0][0][0].dtype, x.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        x, y = (
            F.pad(images.to(dtype), (0, 0, 0, 0, 0, _INPUT_CHANNELS - channels)).contiguous(
                memory_format=torch.channels_last
            )
            for images in (x, y)
        )
        inputs: list[list[Tensor]] = []  # of each stage's convolutions, and what the last of them gave
        grads: list[Tensor] = []  # of each stage's distance, by what its last ReLU was given
        distance = torch.zeros(len(x), device=x.device)
        for number, (stage, weight) in enumerate(zip(stages, weights, strict=True)):
            if number:
                x, y = fused_max_pool(x), fused_max_pool(y)
            kept = [x]
            for kernel, bias in stage:
                x, y = conv_relu(x, kernel, bias), conv_relu(y, kernel, bias)
                kept.append(x)
            term, grad = fused_distance(x, y, weight, eps, scale)
            distance = distance + term
            if scale is not None:
                inputs.append(kept)
                grads.append(grad)
        if scale is None:
            return distance, None
        passed = None  # by a stage to the one before it, through the pooling between them
        while inputs:
            kept, grad = inputs.pop(), grads.pop()
            if passed is not None:
                add_pool_gradient(grad, kept[-1], passed)
            passed = _stage_gradient(grad, kept, stages[len(inputs)])
        return distance, passed[:, :channels].float() / scale


def _stage_gradient(grad: Tensor, kept: list[Tensor], stage: Stage) -> Tensor:
    """From what a stage's last ReLU was given back to what its first convolution was given."""
    for layer in range(len(stage) - 1, -1, -1):
        grad = conv_relu_gradient(grad, kept[layer], stage[layer][0])
        if layer:
            grad = torch.ops.aten.threshold_backward(grad, kept[layer], 0)
        kept.pop()
    return grad
