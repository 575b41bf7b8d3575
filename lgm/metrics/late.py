"""Deferred scalars: values of the device that are read a step later, by an asynchronous copy."""

from __future__ import annotations

import torch
from torch import Tensor


class Late:
    """Copies a small tensor to the host behind the work that makes it, and waits for no more than that copy.

    Reading a tensor on a GPU waits for everything that has been queued by then: at each step, that
    costs the lead which the program has over the device.
    """

    def __init__(self, value: Tensor) -> None:
        value = value.detach()
        self._copied: torch.Event | None = None
        if value.device.type == "cpu":
            self._value = value.clone()
            return
        self._value = torch.empty_like(value, device="cpu", pin_memory=True)
        self._value.copy_(value, non_blocking=True)
        # An event marks the copy in the stream: reading waits for it, not for what was queued behind.
        self._copied = torch.Event(value.device)
        self._copied.record()

    def read(self) -> float:
        """The value of a scalar."""
        return float(self.tensor())

    def tensor(self) -> Tensor:
        """The values on the host, in the shape they were given."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._value
