"""`python evaluate.py ckpt=…`"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf, open_dict

from lgm.callbacks import Measure, SameOnAllRanks
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
from lgm.cli.networks import chosen_network
from lgm.cli.resume import facts_of
from lgm.cli.validate import (
    FOR_TRAINING,
    architecture,
    check_callbacks,
    check_data,
    check_devices,
    check_renderer,
    num_devices,
    refuse_options,
    typed,
)
from lgm.kernels import kernels_for
from lgm.lightning_internals import ending_peers
from lgm.models import Network
from lgm.models.checkpoint import load_released, load_strictly, weights_hash
from lgm.models.plain_data import changes
from lgm.models.pretrained import Weights, options_of, read_weights
from lgm.models.registry import COMPUTED_BY, DEFAULT, NETWORKS, MakeNetwork, network_of, same_network, takes

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> float | None:
    """Measure a checkpoint; return the metric that a sweep reads."""
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

    with open_dict(cfg):
        given = cfg.kernels
        cfg.kernels = kernels_for(cfg.speed, given)
        for argument in COMPUTED_BY:
            if cfg[argument] is None:
                continue
            if takes(network_of(cfg.model.net, network), argument):
                cfg.model.net[argument] = cfg[argument]
            elif argument != "kernels" or given is not None:  # PyTorch's own are both of `speed`'s
                raise ValueError(
                    f"{argument}={cfg[argument]} would have no effect: {cfg.model.net._target_} takes no "
                    f"{argument}; leave it out"
                )
    datamodule = build_datamodule(cfg)
    datamodule.check("test", num_devices(cfg), cfg.trainer.num_nodes)
    net = build_net(cfg)
    if weights.config is not None:
        load_strictly(net, weights.tensors, str(weights.path))
    else:
        load_released(net, weights.path, cfg.rotation)

    callbacks, tensors = build_callbacks(cfg), weights_hash(weights.tensors)
    for callback in callbacks.values():
        if isinstance(callback, Measure):
            callback.make_untrained = partial(untrained, cfg)
            callback.weights, callback.weights_hash = weights.kind, tensors
    module = build_module(cfg, net, batch_size=None)
    if num_devices(cfg) * cfg.trainer.num_nodes > 1:
        facts = facts_of(cfg, datamodule, "test") | {"weights": f"{weights.kind} ({tensors})"}
        callbacks["agreement"] = SameOnAllRanks(facts)
    trainer = build_trainer(cfg, callbacks)
    check_world_size(trainer, num_devices(cfg) * cfg.trainer.num_nodes)
    run_dir = Path(cfg.run_dir)
    with exclusive(run_dir) if trainer.is_global_zero else nullcontext():
        if trainer.is_global_zero:
            save_config(cfg, run_dir)
        with ending_peers(trainer):
            trainer.test(module, datamodule, verbose=False)
    value = trainer.callback_metrics.get(cfg.optimized_metric)
    return None if value is None else float(value)


def adopt(cfg: DictConfig, stored: dict[str, Any], chosen: MakeNetwork | None = None) -> None:
    """Take model, scene and resolution from a record that `lgm.models.records` has checked.

    chosen: the network that cfg.model names. A record's own name is then compared with it, and not imported.
    """
    for override, key in typed() or []:
        if key.split(".")[0] in ("scene", "resolution"):
            raise ValueError(f"{override} would have no effect: ckpt={cfg.ckpt} brings its own; leave it out")
        back_end = key.removeprefix("model.net.")
        if back_end != key and back_end in COMPUTED_BY:
            value = override.partition("=")[2]
            raise ValueError(f"{override} would have no effect beside a .ckpt; give {back_end}={value}")
    if cfg.rotation is not None:
        raise ValueError(
            f"rotation={cfg.rotation} would have no effect: ckpt={cfg.ckpt} says how its rotations are read; "
            "leave it out"
        )
    model = stored["model"]
    net = {"_target_": DEFAULT, **model["net"]}
    if cfg.model is not None:
        asked = OmegaConf.to_container(cfg.model, resolve=True)
        if chosen is not None and same_network(net["_target_"], chosen):
            net["_target_"] = asked["net"]["_target_"]  # of the names of one class, the one that was given
        if set(asked) == {"net"} and set(asked["net"]) <= {"_target_", *COMPUTED_BY}:
            asked = {**model, "net": {**net, **asked["net"]}}  # a name alone: the arguments are the record's
        differing = list(changes(architecture({**model, "net": net}), architecture(asked), "model"))
        if differing:
            raise ValueError(
                f"ckpt={cfg.ckpt} holds another network than model={asked.get('name')}: "
                f"{', '.join(differing)}; leave model=… out"
            )
    with open_dict(cfg):
        cfg.model = {**model, "net": net}
        cfg.scene, cfg.resolution = stored["scene"], stored["resolution"]


def infer(cfg: DictConfig, weights: Weights) -> None:
    """Take the architecture from the shapes of weights without a record, as the released ones are."""
    network = NETWORKS[DEFAULT]
    options = options_of(weights, network, {"kernels": "auto"})
    net = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    with open_dict(cfg):
        cfg.model = {"name": weights.path.stem.replace("$", ""), "net": {"_target_": DEFAULT, **net}}
        if not any(key.split(".")[0] == "resolution" for _, key in typed() or []):
            cfg.resolution.target_size = network.inferred(weights.tensors)[1]
    log.info(
        "%s records no model: down_channels=%s up_channels=%s by its shapes, target_size=%d",
        weights.path,
        net["down_channels"],
        net["up_channels"],
        cfg.resolution.target_size,
    )


def untrained(cfg: DictConfig) -> Network:
    """The same network as its training would begin: a baseline."""
    L.seed_everything(cfg.train.seed, verbose=False)
    return build_net(cfg)
