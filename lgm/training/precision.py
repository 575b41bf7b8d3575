"""Which numbers a sharded network computes with."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.plugins.precision import FSDPPrecision
from torch.distributed.fsdp import MixedPrecision


class FSDPAutocast(FSDPPrecision):
    """Sharded weights stay float32 and the forward pass is autocast, as on a single GPU.

    Lightning's own hands cameras, pictures and weights over in bf16: a camera's position then has
    three digits, and so has a Gaussian's.
    """

    @property
    def mixed_precision_config(self) -> MixedPrecision:
        return MixedPrecision()

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data
