"""Plans: from a composed configuration to checked plain values, the last module that sees the configuration.

    composed configuration → plan (here) → objects (`lgm.cli.build`) → fit, test

What can be refused without building anything is refused here, in one line. From here on a run is plain
values: nothing further down reads the command line, resolves an interpolation or asks the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from lgm.cli.adopt import adopt, infer, set_backends, set_resize
from lgm.cli.networks import check_recordable, chosen_network
from lgm.cli.provenance import provenance
from lgm.cli.recipe import keep_recorded
from lgm.cli.speed import apply_speed
from lgm.cli.validate import (
    FOR_TRAINING,
    BatchPlan,
    check_callbacks,
    check_data,
    check_devices,
    check_renderer,
    check_search,
    check_training,
    num_devices,
    refuse_options,
)
from lgm.cli.values import plain
from lgm.cli.warm_up import shorten_warm_up
from lgm.models.pretrained import Weights, read_weights
from lgm.models.registry import MakeNetwork


@dataclass(frozen=True)
class Plan:
    """A run that has passed its checks.

    config: the whole configuration, resolved: dicts, lists and scalars.
    run_dir: the folder that the run writes to. devices: processes a node.
    network: what the configuration names, one's own included; checkpoints may name it too.
    """

    config: dict[str, Any]
    run_dir: Path
    devices: int
    num_nodes: int
    network: MakeNetwork | None

    @property
    def world_size(self) -> int:
        """Processes over all nodes."""
        return self.devices * self.num_nodes


@dataclass(frozen=True)
class TrainingPlan(Plan):
    """batches: how a global batch is made up."""

    batches: BatchPlan


@dataclass(frozen=True)
class EvaluationPlan(Plan):
    """weights: what is measured; model, scene and resolution of `config` are theirs.

    provenance: what pages say of the run, by its label.
    """

    weights: Weights
    provenance: dict[str, str]


def plan_training(cfg: DictConfig) -> TrainingPlan:
    """Raises ValueError or FileNotFoundError in one line for what can be seen before anything is built."""
    check_search(cfg)
    cfg = keep_recorded(cfg)
    batches = check_training(cfg)
    shorten_warm_up(cfg)
    apply_speed(cfg)
    network = chosen_network(cfg)
    check_recordable(cfg, network)  # raises now for what cannot be resolved, or read again
    return TrainingPlan(**_common(cfg, network), batches=batches)


def plan_evaluation(cfg: DictConfig) -> EvaluationPlan:
    """Read the weights and take from their record what they were trained with; raises as `plan_training`."""
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise ValueError("ckpt is not set: give ckpt=<.ckpt of a run, or a released .safetensors>")
    refuse_options(FOR_TRAINING)
    check_data(cfg)
    check_callbacks(cfg, "evaluate")
    check_devices(cfg)
    check_renderer(cfg)
    network = chosen_network(cfg)
    weights = read_weights(cfg.ckpt, cfg.weights, network)
    if weights.config is not None:
        adopt(cfg, weights.config, network)
    elif cfg.model is None:
        infer(cfg, weights)
    set_backends(cfg, network)
    set_resize(cfg, weights)
    if cfg.refine.steps:  # part of what is measured, and so of the protocol's hash
        with open_dict(cfg):
            cfg.protocol.refine = cfg.refine
    return EvaluationPlan(**_common(cfg, network), weights=weights, provenance=provenance(cfg, weights))


def _common(cfg: DictConfig, network: MakeNetwork | None) -> dict[str, Any]:
    return {
        "config": plain(cfg),
        "run_dir": Path(cfg.run_dir),
        "devices": num_devices(cfg),
        "num_nodes": cfg.trainer.num_nodes,
        "network": network,
    }
