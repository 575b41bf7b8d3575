"""`python train.py …`: train a network."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from lgm import stopping
from lgm.callbacks import ReportTrial, SameOnAllRanks, TrainingCost
from lgm.cli.build import (
    build_callbacks,
    build_datamodule,
    build_mirror,
    build_module,
    build_net,
    build_trainer,
    save_config,
)
from lgm.cli.launch import check_world_size
from lgm.cli.lock import exclusive
from lgm.cli.plan import TrainingPlan, plan_training
from lgm.cli.provenance import training_provenance
from lgm.cli.rendezvous import separate_round
from lgm.cli.resume import check_resume, check_training_state, facts_of, resume_fact, resume_path
from lgm.cli.speed import times_convolutions
from lgm.cli.start import start
from lgm.cli.sweeps.trial import MetricNeverLogged, current_trial
from lgm.cli.values import recorded
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.files import write_text
from lgm.kernels import cudnn_benchmark
from lgm.lightning_internals import ending_peers
from lgm.masking import masked_values
from lgm.models import Network
from lgm.models.pretrained import freeze
from lgm.training.module import LGMModule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """The objects that a training runs with.

    resume: the checkpoint that it goes on from.
    """

    module: LGMModule
    datamodule: ObjectDataModule
    trainer: L.Trainer
    resume: Path | None


def train(cfg: DictConfig) -> float | None:
    """Train; return the metric that a sweep optimises, or None where it was never measured."""
    plan = plan_training(cfg)
    return fit(plan, build_training(plan))


def build_training(plan: TrainingPlan) -> Training:
    """Check the data, build network, module, callbacks and trainer, and read the checkpoint of a resume."""
    config = plan.config
    datamodule = build_datamodule(config, accumulation=plan.batches.accumulation)
    datamodule.check("fit", plan.devices, plan.num_nodes)
    mirror = build_mirror(config)
    resume = resume_path(config["resume"], plan.run_dir, plan.network, mirror)

    # Just before the network: its initial weights depend on the seed alone, not on what was built before.
    L.seed_everything(config["train"]["seed"], verbose=False)
    net = build_net(config)
    before, checkpoint, first_step = {}, None, 0
    if resume is not None:
        checkpoint = check_resume(config, net, resume, plan.network)
    elif config["init_from"] is not None:
        before = start(config, net, plan.network)
    prepare_network(net, config)
    module = build_module(config, net, plan.batches.global_batch)
    callbacks = build_callbacks(config, [(TrainingCost, {"before": before})])
    # Raises now what would else come after all processes have started.
    optimizer = module.configure_optimizers()["optimizer"]
    if checkpoint is not None:
        check_training_state(checkpoint, resume, optimizer)
        first_step = checkpoint["global_step"]
    del optimizer, checkpoint  # the run makes and reads its own
    if plan.world_size > 1:
        facts = facts_of(config, datamodule, "fit") | {"resume": resume_fact(resume, first_step)}
        callbacks["agreement"] = SameOnAllRanks(facts)
        separate_round()
    if (trial := current_trial()) is not None:
        callbacks["trial"] = ReportTrial(config["optimized_metric"], trial.report, MetricNeverLogged)
    # A run shorter than the interval is validated at its end: a sweep wants its value.
    interval = min(config["train"]["val_every_steps"], config["train"]["max_steps"])
    trainer = build_trainer(
        config,
        callbacks,
        mirror,
        accumulate_grad_batches=plan.batches.accumulation,
        # Lightning counts micro-batches here: gradient accumulation multiplies the optimizer steps.
        val_check_interval=interval * plan.batches.accumulation,
    )
    check_world_size(trainer, plan.world_size)
    return Training(module, datamodule, trainer, resume)


def prepare_network(net: Network, config: dict[str, Any]) -> None:
    """Freeze parameters, and choose how the network's passes are computed in training."""
    freeze(net, list(config["freeze"]))
    if config["train"]["gradient_checkpointing"]:
        net.use_activation_checkpointing()
    if config["train"]["compile"]:
        net.compile()  # in place: names in checkpoints stay
    if config["train"]["graph"]:
        net.use_cuda_graphs()


def fit(plan: TrainingPlan, training: Training) -> float | None:
    """Train; return the metric that a sweep optimises."""
    config, batches, trainer = plan.config, plan.batches, training.trainer
    log.info(
        "%s: %.2fM parameters, %d Gaussians, batch %d = %d × %d devices × %d accumulated, %d steps → %s",
        config["model"]["name"],
        sum(p.numel() for p in training.module.net.parameters()) / 1e6,
        training.module.net.num_gaussians,
        batches.global_batch,
        batches.micro,
        batches.world_size,
        batches.accumulation,
        config["train"]["max_steps"],
        plan.run_dir,
    )
    samples = config["train"]["max_steps"] * batches.global_batch
    distinct, uses = training.datamodule.uses_per_object(samples)
    log.info("data: %d samples of %d distinct objects, each used %.1f times", samples, distinct, uses)
    with exclusive(plan.run_dir) if trainer.is_global_zero else nullcontext():
        if trainer.is_global_zero:
            record(plan, training)
        ckpt_path = None if training.resume is None else str(training.resume)
        try:
            with ending_peers(trainer), cudnn_benchmark(times_convolutions(config, trainer)):
                trainer.fit(training.module, training.datamodule, ckpt_path=ckpt_path, weights_only=True)
        finally:
            stopping.defer(False)  # the last checkpoint is written
    return final_metric(trainer, config["optimized_metric"])


def record(plan: TrainingPlan, training: Training) -> None:
    """Write the configuration and where it comes from into the run's folder, and tell the loggers."""
    save_config(plan.config, plan.run_dir)
    provenance = masked_values(training_provenance(plan.config, training.datamodule))
    write_text(plan.run_dir / "provenance.json", json.dumps(provenance, indent=2) + "\n")
    for logger in training.trainer.loggers:  # a logger's own mistakes, a missing key, end the run here
        logger.log_hyperparams({**recorded(plan.config), "provenance": provenance})


def final_metric(trainer: L.Trainer, name: str) -> float | None:
    """The metric's last value or, where a finished run had nothing left to do, the best on record."""
    scores = [cb.best_model_score for cb in trainer.checkpoint_callbacks if cb.monitor == name]
    known = [trainer.callback_metrics.get(name), *scores]
    return next((float(value) for value in known if value is not None), None)
