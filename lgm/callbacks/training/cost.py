"""The cost of a run's weights in device minutes, recorded in its checkpoints."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.errors import reading


class TrainingCost(Callback):
    """Counts the time that devices have spent on a run, validation included, over all of its legs.

    Each checkpoint says under `callbacks`, `TrainingCost`: `device_minutes`, the clock's minutes times the
    number of devices, and `devices`, e.g. "2 × NVIDIA H100 80GB HBM3", of all legs. Steps after the
    checkpoint that a run goes on from are made twice and count once, as in the weights; legs before this
    callback was there count nothing.

    before: how the weights came about that the run starts from (`Weights.training`), which each checkpoint
        repeats where they say it: their minutes are not among these.
    """

    def __init__(self, before: dict[str, Any] | None = None) -> None:
        self.before: dict[str, Any] = before or {}
        self._minutes = 0.0  # of what has ended
        self._started: float | None = None
        self._num_devices = 1
        self._devices: list[str] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and note the devices."""
        self._started, self._num_devices = time.monotonic(), trainer.world_size
        devices = devices_of(trainer, pl_module.device)
        if devices not in self._devices:
            self._devices.append(devices)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._minutes, self._started = self._so_far(), None

    def _so_far(self) -> float:
        elapsed = 0.0 if self._started is None else time.monotonic() - self._started
        return self._minutes + elapsed / 60 * self._num_devices

    def state_dict(self) -> dict[str, Any]:
        """`device_minutes` and `devices` so far, and `before` where the run started from other weights."""
        known = {"device_minutes": round(self._so_far(), 3), "devices": ", ".join(self._devices)}
        return {**known, "before": self.before} if self.before else known

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the count of the checkpoint."""
        with reading("TrainingCost in the checkpoint", "leave it out: callbacks.cost=null"):
            self._minutes = float(state_dict["device_minutes"])
            self._devices = [devices for devices in state_dict["devices"].split(", ") if devices]
            self.before = state_dict.get("before", {})


def devices_of(trainer: Trainer, device: torch.device) -> str:
    """How many of which, as a person says it; of several kinds, the first rank's."""
    module = None if device.type == "cpu" else torch.get_device_module(device)
    name = getattr(module, "get_device_name", lambda device: device.type.upper())(device)
    return f"{trainer.world_size} × {name}"
