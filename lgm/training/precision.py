"""Precision plugins where Lightning's own do not fit: half-precision weights, FSDP under autocast."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins.precision import FSDPPrecision, Precision
from torch import nn
from torch.distributed.fsdp import MixedPrecision

HALVES = {"16-true": torch.float16, "bf16-true": torch.bfloat16}


class HalfWeights(Precision):
    """The network's weights in half precision, for evaluation; images, cameras, Gaussians, rendering and
    metrics stay float32.

    Lightning's own turns every tensor of a batch into halves, targets and cameras too, and what is made
    in between by changing the default type.

    precision: "16-true" or "bf16-true".
    """

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def convert_module(self, module: nn.Module) -> nn.Module:
        """module: a network (`lgm.models.Network`), or what holds one as `net`."""
        # Only the network: the module around it holds metrics and buffers in float32.
        getattr(module, "net", module).in_half(HALVES[self.precision])
        return module


class FSDPAutocast(FSDPPrecision):
    """Sharded weights stay float32 and the forward pass is autocast, as on a single GPU.

    Lightning's own hands cameras, images and weights over in bf16: a camera's position then has
    three digits, and so has a Gaussian's.
    """

    @property
    def mixed_precision_config(self) -> MixedPrecision:
        """Everything in the parameters' own float32; autocast decides per operation."""
        return MixedPrecision()

    def convert_input(self, data: Any) -> Any:
        """Inputs as they are: cameras stay float32."""
        return data

    def convert_output(self, data: Any) -> Any:
        """Outputs as they are."""
        return data
