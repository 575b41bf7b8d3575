"""The `speed` option: which kernels, compilation and CUDA graphs a training uses."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, open_dict

from lgm.cli.validate import num_devices, typed
from lgm.kernels import kernels_for


def apply_speed(cfg: DictConfig) -> None:
    """Set model.net.kernels to what `speed` stands for, in training.

    Raises ValueError in one line where another option says otherwise, or cannot be met here.
    """
    given = {key: override.partition("=")[2] for override, key in typed() or []}
    kernels = kernels_for(cfg.speed, None)
    if "speed" in given:
        kernels_for(cfg.speed, given.get("model.net.kernels"), "model.net.kernels")  # type: ignore[arg-type]
    for key in ("compile", "graph"):
        if cfg.speed == "eager" and cfg.train[key]:
            raise ValueError(f"speed=eager is train.{key}=false and train.{key}=true is set; leave one out")
    if kernels == "plain" and "kernels" in cfg.model.net:
        with open_dict(cfg):
            cfg.model.net.kernels = kernels
    if cfg.train.graph:
        check_graph(cfg)


def check_graph(cfg: DictConfig) -> None:
    """Raise ValueError where a step's network cannot be captured as a CUDA graph."""
    for key in ("compile", "gradient_checkpointing"):
        if cfg.train[key]:
            raise ValueError(f"train.graph=true does not go with train.{key}=true; leave one of them out")
    if cfg.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        raise ValueError("train.graph=true records a GPU's kernels and this run is on a CPU; leave it out")
    if num_devices(cfg) * cfg.trainer.num_nodes > 1:
        raise ValueError(
            "train.graph=true gives all gradients at once, when none can be sent beside the backward pass; "
            "leave it out, or train on one device"
        )


def times_convolutions(config: dict[str, Any], trainer: L.Trainer) -> bool:
    """Whether a training lets cuDNN time its kernels for convolutions: at speed=fast on a GPU, unless
    trainer.benchmark says so or otherwise. The shapes of a run are few (one a batch size, and one a size of
    the supervised images), so that the search ends with the first steps of each."""
    on_gpu = trainer.strategy.root_device.type == "cuda"
    return config["speed"] == "fast" and on_gpu and config["trainer"].get("benchmark") is None
