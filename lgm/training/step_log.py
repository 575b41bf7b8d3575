"""The log of an optimizer step: means over all of its micro-batches (gradient accumulation), on all ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class StepLog:
    """Sums values on the device; one reduction a logged step, none on the others."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def clear(self) -> None:
        """Forget all values, after a logged step."""
        self._sums, self._counts = {}, {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one micro-batch's scalars; names may differ from call to call, not from rank to rank."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """The mean of each value over micro-batches and ranks; collective, so all ranks must call it."""
        if not self._sums:
            return {}
        # One tensor, so that all values take one all-reduce.
        means = torch.stack([self._sums[name] / self._counts[name] for name in self._sums])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(means)
            means = means / torch.distributed.get_world_size()
        return dict(zip(self._sums, means.unbind(), strict=True))
