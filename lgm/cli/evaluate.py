"""`python evaluate.py ckpt=…`"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import lightning as L
from omegaconf import DictConfig, OmegaConf, open_dict

from lgm.callbacks import Measure
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
from lgm.cli.resume import changes
from lgm.cli.validate import (
    FOR_TRAINING,
    architecture,
    check_data,
    check_devices,
    check_renderer,
    num_devices,
    refuse_options,
    typed,
)
from lgm.models import LGM
from lgm.models.checkpoint import load_released, load_strictly, weights_hash
from lgm.models.pretrained import read_weights

log = logging.getLogger(__name__)

# What a checkpoint's own configuration decides: evaluation must not be told its model again.
_FROM_CHECKPOINT = ("model", "scene", "resolution")
# But what computes it is no part of it.
_BACK_ENDS = ("attention", "kernels")


def evaluate(cfg: DictConfig) -> float | None:
    """Measure a checkpoint; return the metric that a sweep reads."""
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise ValueError("ckpt is not set: give ckpt=<.ckpt of a run, or a released .safetensors>")
    refuse_options(FOR_TRAINING)
    check_data(cfg)
    check_devices(cfg)
    check_renderer(cfg)
    weights = read_weights(cfg.ckpt, cfg.weights)
    if weights.config is not None:
        adopt(cfg, weights.config)
    elif cfg.model is None:
        raise ValueError(f"ckpt={cfg.ckpt} does not say which model it is; add model=big (or small, tiny, …)")

    with open_dict(cfg):
        for back_end in _BACK_ENDS:
            if cfg[back_end] is not None:
                cfg.model.net[back_end] = cfg[back_end]
    datamodule = build_datamodule(cfg)
    datamodule.check("test", num_devices(cfg), cfg.trainer.num_nodes)
    net = build_net(cfg)
    if weights.config is not None:
        load_strictly(net, weights.tensors, str(weights.path))
    else:
        load_released(net, weights.path, cfg.rotation)

    callbacks = build_callbacks(cfg)
    for callback in callbacks.values():
        if isinstance(callback, Measure):
            callback.make_untrained = partial(untrained, cfg)
            callback.weights, callback.weights_hash = weights.kind, weights_hash(weights.tensors)
    module = build_module(cfg, net, batch_size=None)
    trainer = build_trainer(cfg, callbacks)
    check_world_size(trainer, num_devices(cfg) * cfg.trainer.num_nodes)
    run_dir = Path(cfg.run_dir)
    with exclusive(run_dir) if trainer.is_global_zero else nullcontext():
        if trainer.is_global_zero:
            save_config(cfg, run_dir)
        trainer.test(module, datamodule, verbose=False)
    value = trainer.callback_metrics.get(cfg.optimized_metric)
    return None if value is None else float(value)


def adopt(cfg: DictConfig, stored: dict) -> None:
    """Take model, scene and resolution from a checkpoint's configuration."""
    for override, key in typed() or []:
        if key.split(".")[0] in ("scene", "resolution"):
            raise ValueError(f"{override} would have no effect: ckpt={cfg.ckpt} brings its own; leave it out")
        back_end = key.removeprefix("model.net.")
        if back_end != key and back_end in _BACK_ENDS:
            value = override.partition("=")[2]
            raise ValueError(f"{override} would have no effect beside a .ckpt; give {back_end}={value}")
    if cfg.rotation is not None:
        raise ValueError(
            f"rotation={cfg.rotation} would have no effect: ckpt={cfg.ckpt} says how its rotations are read; "
            "leave it out"
        )
    if cfg.model is not None:
        asked = OmegaConf.to_container(cfg.model, resolve=True)
        differing = list(changes(architecture(stored["model"]), architecture(asked), "model"))
        if differing:
            raise ValueError(
                f"ckpt={cfg.ckpt} holds another network than model={cfg.model.name}: "
                f"{', '.join(differing)}; leave model=… out"
            )
    with open_dict(cfg):
        for key in _FROM_CHECKPOINT:
            cfg[key] = stored[key]


def untrained(cfg: DictConfig) -> LGM:
    """The same network as its training would begin: a baseline."""
    L.seed_everything(cfg.train.seed, verbose=False)
    return build_net(cfg)
