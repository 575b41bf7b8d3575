"""`python evaluate.py ckpt=…`: measure weights under a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
from omegaconf import DictConfig

from lgm.callbacks import Measure, Report, SameOnAllRanks
from lgm.cli.build import (
    build_callbacks,
    build_datamodule,
    build_module,
    build_net,
    build_trainer,
    save_config,
)
from lgm.cli.launch import check_world_size
from lgm.cli.lock import exclusive
from lgm.cli.plan import EvaluationPlan, plan_evaluation
from lgm.cli.resume import facts_of
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.lightning_internals import ending_peers
from lgm.models import Network
from lgm.models.checkpoint import weights_hash
from lgm.models.pretrained import load_weights
from lgm.rendering.precision import full_precision
from lgm.training.module import LGMModule


@dataclass(frozen=True)
class Evaluation:
    """The objects that an evaluation runs with."""

    module: LGMModule
    datamodule: ObjectDataModule
    trainer: L.Trainer


def evaluate(cfg: DictConfig) -> float | None:
    """Measure a checkpoint; return the metric that a sweep reads."""
    plan = plan_evaluation(cfg)
    return test(plan, build_evaluation(plan))


def build_evaluation(plan: EvaluationPlan) -> Evaluation:
    """Check the data, build network, module, callbacks and trainer, and load the weights."""
    config, weights = plan.config, plan.weights
    datamodule = build_datamodule(config)
    # Before the network: broken data is said within seconds, not after gigabytes of weights.
    datamodule.check("test", plan.devices, plan.num_nodes)
    net = build_net(config)
    load_weights(net, weights, config["rotation"])

    tensors = weights_hash(weights.tensors)
    measured = {"weights": weights.kind, "weights_hash": tensors}
    callbacks = build_callbacks(
        config,
        [
            (Measure, {**measured, "make_untrained": partial(untrained, config)}),
            (
                Report,
                {"provenance": {**plan.provenance, "weights": f"{plan.provenance['weights']}, {tensors}"}},
            ),
        ],
    )
    module = build_module(config, net, batch_size=None)
    if plan.world_size > 1:
        facts = facts_of(config, datamodule, "test") | {"weights": f"{weights.kind} ({tensors})"}
        callbacks["agreement"] = SameOnAllRanks(facts)
    trainer = build_trainer(config, callbacks)
    check_world_size(trainer, plan.world_size)
    return Evaluation(module, datamodule, trainer)


def test(plan: EvaluationPlan, evaluation: Evaluation) -> float | None:
    """Measure; return the metric that a sweep reads."""
    trainer = evaluation.trainer
    # Rank 0 alone writes and holds the folder: the others would find it in use.
    with exclusive(plan.run_dir) if trainer.is_global_zero else nullcontext():
        if trainer.is_global_zero:
            save_config(plan.config, plan.run_dir)
        with ending_peers(trainer), _precision(plan.config, trainer):
            trainer.test(evaluation.module, evaluation.datamodule, verbose=False)
    value = trainer.callback_metrics.get(plan.config["optimized_metric"])  # None where nothing was measured
    return None if value is None else float(value)


def _precision(config: Mapping[str, Any], trainer: L.Trainer) -> AbstractContextManager[None]:
    """Float32 without TF32, so that a GPU gives the numbers of a CPU, unless another precision was chosen."""
    if str(config["trainer"]["precision"]) not in ("32-true", "32"):
        return nullcontext()
    return full_precision(trainer.strategy.root_device.type)


def untrained(config: Mapping[str, Any]) -> Network:
    """The same network as its training would begin: a baseline."""
    L.seed_everything(config["train"]["seed"], verbose=False)
    return build_net(config)
