"""What the weights of a run have cost."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class TrainingCost(Callback):
    """Counts the time that devices have spent on a run, validation included, over all of its legs.

    Each checkpoint says under `callbacks`, `TrainingCost`: `device_minutes`, the clock's minutes times the
    number of devices, and `devices`, e.g. "2 × NVIDIA H100 80GB HBM3". Steps after the checkpoint that a run
    goes on from are made twice and count once, as in the weights.
    """

    def __init__(self) -> None:
        self._before = 0.0  # device minutes of earlier legs
        self._started: float | None = None
        self._num_devices = 1
        self._devices = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._num_devices = time.monotonic(), trainer.world_size
        self._devices = devices_of(trainer, pl_module.device)

    def state_dict(self) -> dict[str, Any]:
        elapsed = 0.0 if self._started is None else time.monotonic() - self._started
        minutes = self._before + elapsed / 60 * self._num_devices
        return {"device_minutes": round(minutes, 3), "devices": self._devices}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = float(state_dict["device_minutes"])


def devices_of(trainer: Trainer, device: torch.device) -> str:
    """How many of which, as a person says it; of several kinds, the first rank's."""
    name = "CPU" if device.type == "cpu" else torch.get_device_module(device).get_device_name(device)
    return f"{trainer.world_size} × {name}"
