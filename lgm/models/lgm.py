"""The Large Multi-View Gaussian Model: posed images of an object to 3D Gaussians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lgm.gaussians.activations import Rotation
from lgm.kernels import KernelChoice, use_kernels
from lgm.models.anchors import AnchorKind
from lgm.models.attention import AttentionChoice, use_attention
from lgm.models.blocks import use_gradient_checkpointing
from lgm.models.checkpoint import released_rotation
from lgm.models.lgm_tensors import inferred_net
from lgm.models.splat_map import NUM_INPUT_CHANNELS, NUM_RAW_CHANNELS, SplatMapNetwork
from lgm.models.unet import UNet, check_levels


class LGM(SplatMapNetwork):
    """Four (or `num_input_views`) images and their cameras to one Gaussian a pixel of the splat map.

    down_channels, down_attention: width of each level of the U-Net on the way down, and whether
        its tokens attend across views; up_*: the same on the way up, from the bottom.
    input_size: height and width of the input images; the splat map's size follows from it and
        from the number of levels (`splat_size`).
    anchors: what positions and colours are offsets from. "none", the origin and grey, as released.
        "pixels", each Gaussian's own pixel: its colour, and the point of its ray that is nearest to
        the origin. The network then need not first learn to unproject and to copy, which the
        released one did from 80,000 objects. "hull", the same colour, and the point where the ray
        enters the visual hull of all views.
    scale_bounds: the smallest and largest scale of a Gaussian; None, as released, knows no largest.
    draft_elevations_deg: elevations of further views that the network is given, each with Gaussians of its
        own: hull views of what no input sees, drawn from the hull (`lgm.models.hull_views`). [90, -90] closes
        tops and undersides. Weights fit with and without.
    rotation: how quaternions are normalised; see `lgm.gaussians.activations.activate`.
    attention: the backend that computes attention, "sdpa", "cudnn" or "xformers"; no part of the
        architecture, weights fit either.
    kernels: "plain", norms and the hull are computed by PyTorch, or "auto", by our own fused kernels where
        these run (`lgm.kernels`): the same numbers but for their rounding.
    """

    def __init__(
        self,
        down_channels: Sequence[int],
        down_attention: Sequence[bool],
        mid_attention: bool,
        up_channels: Sequence[int],
        up_attention: Sequence[bool],
        input_size: int,
        num_input_views: int = 4,
        anchors: AnchorKind = "none",
        scale_bounds: Sequence[float] | None = None,
        draft_elevations_deg: Sequence[float] | None = None,
        rotation: Rotation = "fixed",
        attention: AttentionChoice = "sdpa",
        kernels: KernelChoice = "plain",
    ) -> None:
        check_levels(down_channels, down_attention, up_channels, up_attention, input_size)
        super().__init__(
            input_size,
            splat_size(down_channels, up_channels, input_size),
            num_input_views,
            anchors,
            scale_bounds,
            draft_elevations_deg,
            rotation,
        )
        self.unet = UNet(
            in_channels=NUM_INPUT_CHANNELS,
            out_channels=NUM_RAW_CHANNELS,
            down_channels=tuple(down_channels),
            down_attention=tuple(down_attention)[: len(down_channels)],
            mid_attention=mid_attention,
            up_channels=tuple(up_channels),
            up_attention=tuple(up_attention)[: len(up_channels)],
        )
        use_attention(self.unet, attention)
        use_kernels(self, kernels)
        self.conv = nn.Conv2d(NUM_RAW_CHANNELS, NUM_RAW_CHANNELS, 1)
        self.start_output(self.conv.weight, self.conv.bias)

    @property
    def trunk(self) -> nn.Module:
        """The U-Net."""
        return self.unet

    def last_layer(self, features: Float[Tensor, "BV 14 h w"]) -> Float[Tensor, "BV 14 h w"]:
        """The 1×1 convolution, in float32 under autocast as the U-Net's own last layer."""
        with torch.autocast(features.device.type, enabled=False):
            return self.conv(features)

    @property
    def scale_biases(self) -> Float[Tensor, "*pixels 3"]:
        """Of the 1×1 convolution."""
        return self.conv.bias[4:7]

    def in_half(self, dtype: torch.dtype) -> LGM:
        """Turn the weights into float16 or bfloat16, in place: half the memory, for inference alone. The last
        layers stay float32."""
        self.keep_in_half(dtype, (self.unet.norm_out, self.unet.conv_out, self.conv))
        return self

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the splat map of images of that size; ValueError where they do not fit."""
        multiple = 2 ** (len(self.unet.down_blocks) - 1)
        if min(height, width) < multiple or height % multiple or width % multiple:
            raise ValueError(
                f"the network takes images whose height and width are multiples of {multiple}, "
                f"got {height} × {width}"
            )
        return height * self.splat_size // self.input_size, width * self.splat_size // self.input_size

    def use_activation_checkpointing(self) -> None:
        """Activation checkpointing in every level of the U-Net."""
        use_gradient_checkpointing(self)

    @classmethod
    def inferred(cls, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], int]:
        """The released weights were supervised at four times the size of their splat maps."""
        net = inferred_net(tensors)
        return net, 4 * splat_size(net["down_channels"], net["up_channels"], net["input_size"])

    def unrecorded_arguments(self, path: Path) -> dict[str, Any]:
        """As released; of a file by another name, a person knows how its rotations were trained."""
        rotation = released_rotation(path) or self.rotation
        return {"anchors": "none", "rotation": rotation, "scale_bounds": None}

    def trained_splat_size(self, trained: Mapping[str, Any]) -> int | None:
        """By the levels of a U-Net."""
        sizes = ("down_channels", "up_channels", "input_size")
        return splat_size(*(trained[key] for key in sizes)) if all(key in trained for key in sizes) else None


def splat_size(down_channels: Sequence[int], up_channels: Sequence[int], input_size: int) -> int:
    """Height and width of the map of Gaussians: each level halves or doubles the image's."""
    return input_size * 2 ** (len(up_channels) - 1) // 2 ** (len(down_channels) - 1)
