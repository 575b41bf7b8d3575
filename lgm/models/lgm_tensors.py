"""An LGM's arguments from its tensors' names and shapes; its numbers that depend on the splat map."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class HasSplatMap(Protocol):
    """`lgm.models.splat_map.SplatMapNetwork`: its map of Gaussians, and the biases of their raw scales."""

    splat_size: int

    @property
    def scale_biases(self) -> Tensor:
        """Biases [..., 3], as a view of the parameter."""


@torch.no_grad()
def match_spacing(net: HasSplatMap, trained_splat_size: int) -> None:
    """Shrink all Gaussians as the spacing of the splat map's pixels has shrunk since the weights were
    trained: with twice the resolution, four times as many of the old size would blur each other.

    softplus is an exponential where scales are small, so a step of its argument scales them all.
    """
    if trained_splat_size != net.splat_size:
        factor = trained_splat_size / net.splat_size
        net.scale_biases.add_(math.log(factor))
        log.info("splat map %d → %d: scales start at %.3g times", trained_splat_size, net.splat_size, factor)


def inferred_net(tensors: Mapping[str, Tensor], input_size: int = 256) -> dict[str, Any]:
    """The arguments of `LGM` that give these names and shapes, for files that record none.

    input_size: cannot be seen in weights; all released ones take 256².
    """

    def levels(way: str) -> range:
        numbers = [int(name.split(".")[2]) for name in tensors if name.startswith(f"unet.{way}_blocks.")]
        return range(1 + max(numbers, default=0))

    def channels(way: str) -> tuple[int, ...]:
        return tuple(len(tensors[f"unet.{way}_blocks.{i}.nets.0.conv1.bias"]) for i in levels(way))

    def attention(way: str) -> tuple[bool, ...]:
        names = [f"unet.{way}_blocks.{i}.attns.0.attn.qkv.weight" for i in levels(way)]
        return tuple(name in tensors for name in names)

    try:
        return {
            "down_channels": channels("down"),
            "down_attention": attention("down"),
            "mid_attention": "unet.mid_block.attns.0.attn.qkv.weight" in tensors,
            "up_channels": channels("up"),
            "up_attention": attention("up"),
            "input_size": input_size,
        }
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"these are no weights of an LGM: {error} is missing") from error
