"""Feature distances of two images in a frozen network: what LPIPS and its variants have in common.

Images go through a trunk; at some layers the features of each pixel are scaled to unit length, and
the squared differences are averaged over pixels and weighted over channels.

Images and targets go through the trunk side by side, each with an autograd graph only where it requires a
gradient: one batch for both would store the targets' activations for a backward pass that never comes,
and a half of 64 images fills a GPU by itself. Each layer is compared as soon as both have reached it:
of a target nothing is stored but the difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lgm.kernels import autocast_dtype, kernels_run
from lgm.losses.perceptual.fused import Stage, fused_feature_distance, vgg_stages
from lgm.losses.perceptual.trunks import Trunk

_EPS = 1e-10  # the `lpips` package's own


class FeatureDistance(nn.Module, ABC):
    """Distance of each image, 0 for equal ones.

    The trunk follows autocast; normalisation and sums run in float32. The weights move with the module,
    or on the first call to where the images are, and stand outside of everything that is saved,
    counted, trained or sharded: `parameters()` and `state_dict()` are empty.

    name: for messages.
    min_size: the smallest image that the trunk takes, in pixels a side.
    size: images whose longer side is larger are shrunk to it (bilinear), and smaller ones left alone;
        None leaves all.
    fuse: let our own kernels compute a VGG's distance where they run and no target wants a gradient
        (`use_kernels` sets it): the same numbers but for their rounding.

    Raises ValueError for a size below min_size.
    """

    fuse = False

    def __init__(self, name: str, min_size: int, size: int | None) -> None:
        super().__init__()
        self._stages: dict[torch.dtype, list[Stage] | None] = {}  # the trunk as our kernels take it
        if size is not None and size < min_size:
            raise ValueError(f"size={size} is too small for {name}: at least {min_size}, or null")
        self.name = name
        self.min_size = min_size
        self.size = size

    def _freeze(self, trunk: Trunk, weights: Sequence[Float[Tensor, " _"]]) -> None:
        """Take the network, and what each channel of each of its taps counts for."""
        # In a tuple nn.Module does not see them: no checkpoint, optimizer, DDP broadcast or FSDP shard
        # has to be told to leave them out.
        self._frozen = (trunk, nn.ParameterList(nn.Parameter(w, requires_grad=False) for w in weights))

    @abstractmethod
    def standardised(self, images: Float[Tensor, "M 3 h w"]) -> Float[Tensor, "M 3 h w"]:
        """Images in 0..1 as the trunk was trained on them, float32."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeatureDistance:
        self._stages.clear()
        for module in self._frozen:
            module._apply(fn)
        trunk, weights = self._frozen
        trunk.to(memory_format=_memory_format(weights[0].device))
        return super()._apply(fn, recurse)

    def forward(
        self, images: Float[Tensor, "*batch 3 H W"], targets: Float[Tensor, "*batch 3 H W"]
    ) -> Float[Tensor, "*batch"]:
        """images, targets: in 0..1, which is not enforced (the `lpips` package takes -1..1, or these with
        normalize=True). Either gets a gradient where it asks for one; as a term of the loss that is
        `images` alone, and nothing of a target is kept.
        """
        if images.shape != targets.shape:
            raise ValueError(
                f"{self.name} compares images of one shape, "
                f"got {tuple(images.shape)} and {tuple(targets.shape)}"
            )
        # Before the resize, which only shrinks what is larger.
        if min(images.shape[-2:]) < self.min_size:
            raise ValueError(
                f"{self.name} needs images of at least {self.min_size}x{self.min_size}, "
                f"got {images.shape[-2]}x{images.shape[-1]}"
            )
        self._follow(images.device)
        trunk, weights = self._frozen
        kernel = trunk.features[0].weight
        x, y = (
            self.standardised(shrunk(x.flatten(0, -4), self.size)) for x in (images[None], targets[None])
        )  # [M, 3, h, w]
        if self.fuse and kernels_run(x) and not (y.requires_grad and torch.is_grad_enabled()):
            stages = self._fused_stages(autocast_dtype(kernel))
            if stages is not None:
                return fused_feature_distance(x, y, stages, list(weights), _EPS).view(images.shape[:-3])
        x, y = (maps.to(kernel.dtype, memory_format=_memory_format(kernel.device)) for maps in (x, y))
        distance = torch.zeros(len(x), device=x.device)
        for block, weight in zip(trunk.blocks(), weights, strict=True):
            x, y = block(x), block(y)
            distance = distance + layer_distance(x, y, weight)
        return distance.view(images.shape[:-3])

    def _fused_stages(self, dtype: torch.dtype) -> list[Stage] | None:
        """The trunk's convolutions in that precision, cached; None for a trunk that no kernel takes."""
        if dtype not in self._stages:
            with torch.inference_mode(False), torch.no_grad():  # as `_follow`
                self._stages[dtype] = vgg_stages(self._frozen[0], dtype)
        return self._stages[dtype]

    def _follow(self, device: torch.device) -> None:
        """Go where the images are: FSDP moves only what it shards, and calls no `to`."""
        if self._frozen[1][0].device != device:
            # A validation may be the first to call: what it made would be of no use to training.
            with torch.inference_mode(False):
                self.to(device)


def _memory_format(device: torch.device) -> torch.memory_format:
    """GPUs convolve half precision several times faster with the channels last, and nothing in the
    trunk converts back; on a CPU there is nothing to gain."""
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


def shrunk(images: Float[Tensor, "M 3 H W"], size: int | None) -> Float[Tensor, "M 3 h w"]:
    """LPIPS's input resized: bilinear, without antialiasing, to at most `size` pixels along the longer side.

    As in the original program; at half the size that is the mean of 2x2 pixels. Smaller images are not
    enlarged.
    """
    longer = max(images.shape[-2:])
    if size is None or longer <= size:
        return images
    height, width = (max(1, round(side * size / longer)) for side in images.shape[-2:])
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)


def layer_distance(
    x: Float[Tensor, "M C h w"], y: Float[Tensor, "M C h w"], weight: Float[Tensor, " C"]
) -> Float[Tensor, " M"]:
    """One layer's term of the distance [M], in float32 whatever the features' precision."""
    with torch.autocast(x.device.type, enabled=False):
        difference = _unit(x) - _unit(y)
        return (difference.square().mean(dim=(2, 3)) * weight.float()).sum(dim=1)


def _unit(features: Float[Tensor, "M C h w"]) -> Float[Tensor, "M C h w"]:
    # vector_norm, and no square root of a sum: where all channels are 0 its gradient is 0, not NaN.
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True, dtype=torch.float32)
    return features / (norm + _EPS)
