"""`python train.py …`"""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from lgm import stopping
from lgm.callbacks import SameOnAllRanks, TrainingCost
from lgm.cli.build import (
    build_callbacks,
    build_datamodule,
    build_module,
    build_net,
    build_trainer,
    plain,
    recorded,
    save_config,
)
from lgm.cli.launch import check_world_size
from lgm.cli.lock import exclusive
from lgm.cli.networks import check_recordable, chosen_network
from lgm.cli.resume import check_resume, check_training_state, facts_of, resume_fact, resume_path
from lgm.cli.speed import apply_speed
from lgm.cli.validate import check_training, num_devices
from lgm.lightning_internals import ending_peers
from lgm.models import Network
from lgm.models.pretrained import freeze, read_weights, start_from
from lgm.models.registry import complete_net

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Train; return the metric that a sweep optimises, or None where it was never measured."""
    batches = check_training(cfg)
    apply_speed(cfg)
    run_dir = Path(cfg.run_dir)
    check_recordable(cfg)  # raises now for what cannot be resolved, or read again
    datamodule = build_datamodule(cfg, accumulation=batches.accumulation)
    datamodule.check("fit", num_devices(cfg), cfg.trainer.num_nodes)
    resume = resume_path(cfg.resume, run_dir, chosen_network(cfg))

    L.seed_everything(cfg.train.seed, verbose=False)
    net = build_net(cfg)
    before, checkpoint, first_step = {}, None, 0
    if resume is not None:
        checkpoint = check_resume(cfg, net, resume)
    elif cfg.init_from is not None:
        before = start(cfg, net)
    freeze(net, list(cfg.freeze))
    if cfg.train.gradient_checkpointing:
        net.use_activation_checkpointing()
    if cfg.train.compile:
        net.compile()  # in place: names in checkpoints stay
    if cfg.train.graph:
        net.use_cuda_graphs()
    module = build_module(cfg, net, batches.global_batch)
    callbacks = build_callbacks(cfg)
    for callback in callbacks.values():
        if isinstance(callback, TrainingCost):
            callback.before = before
    # Raises now what would else come after all processes have started.
    optimizer = module.configure_optimizers()["optimizer"]
    if checkpoint is not None:
        check_training_state(checkpoint, resume, optimizer)
        first_step = checkpoint["global_step"]
    del optimizer, checkpoint  # the run makes and reads its own
    if batches.world_size > 1:
        facts = facts_of(cfg, datamodule, "fit") | {"resume": resume_fact(resume, first_step)}
        callbacks["agreement"] = SameOnAllRanks(facts)
    trainer = build_trainer(
        cfg,
        callbacks,
        accumulate_grad_batches=batches.accumulation,
        # A run shorter than the interval is validated at its end: a sweep wants its value.
        val_check_interval=min(cfg.train.val_every_steps, cfg.train.max_steps) * batches.accumulation,
    )
    check_world_size(trainer, batches.world_size)
    log.info(
        "%s: %.2fM parameters, %d Gaussians, batch %d = %d × %d devices × %d accumulated, %d steps → %s",
        cfg.model.name,
        sum(p.numel() for p in net.parameters()) / 1e6,
        net.num_gaussians,
        batches.global_batch,
        batches.micro,
        batches.world_size,
        batches.accumulation,
        cfg.train.max_steps,
        run_dir,
    )
    with exclusive(run_dir) if trainer.is_global_zero else nullcontext():
        if trainer.is_global_zero:
            save_config(cfg, run_dir)
            for logger in trainer.loggers:
                logger.log_hyperparams(recorded(cfg))  # W&B's own mistakes end the run here
        ckpt_path = None if resume is None else str(resume)
        try:
            with ending_peers(trainer):
                trainer.fit(module, datamodule, ckpt_path=ckpt_path, weights_only=True)
        finally:
            stopping.defer(False)  # the last checkpoint is written
    return final_metric(trainer, cfg.optimized_metric)


def start(cfg: DictConfig, net: Network) -> dict[str, Any]:
    """Fill the network with the weights that `init_from` names; return what these say of their training."""
    weights = read_weights(cfg.init_from, cfg.init_weights, chosen_network(cfg))
    start_from(net, weights, cfg.init_policy)
    own = complete_net(plain(cfg)["model"]["net"])
    if weights.config is not None:
        trained = complete_net(weights.config["model"]["net"])
        if trained["_target_"] != own["_target_"]:
            log.warning(
                "init_from=%s was trained as %s, this network is %s",
                cfg.init_from,
                trained["_target_"],
                own["_target_"],
            )
    else:
        trained = net.unrecorded_arguments(weights.path)
    for key in net.decisive_arguments:  # not seen in tensors, which mean nothing without
        if key in trained and key in own and trained[key] != own[key]:
            then, now = (
                json.dumps(value, separators=(",", ":")).strip('"') for value in (trained[key], own[key])
            )
            raise ValueError(
                f"init_from={cfg.init_from} was trained with {key}={then}, this network has {now}; set "
                f"model.net.{key}={then}"
            )
    for key in net.noted_arguments:
        if key in trained and key in own and trained[key] != own[key]:
            log.warning(
                "init_from=%s was trained with %s=%s, this network has %s",
                cfg.init_from,
                key,
                trained[key],
                own[key],
            )
    net.started_from(trained)
    return weights.training


def final_metric(trainer: L.Trainer, name: str) -> float | None:
    """The metric's last value or, where a finished run had nothing left to do, the best on record."""
    scores = [cb.best_model_score for cb in trainer.checkpoint_callbacks if cb.monitor == name]
    known = [trainer.callback_metrics.get(name), *scores]
    return next((float(value) for value in known if value is not None), None)
