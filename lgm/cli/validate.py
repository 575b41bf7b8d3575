"""Validation across configuration fields, before any long work starts."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from lgm.cameras.checks import MAX_DISTANCE, MIN_DISTANCE, fov_fault
from lgm.cli.launch import check_launch, starts_elsewhere
from lgm.cli.sweeps.trial import current_trial
from lgm.models.pretrained import check_choice
from lgm.models.registry import complete_net
from lgm.rendering import Renderer, make_renderer
from lgm.rendering.choice import BACKENDS
from lgm.training.precision import HALVES

log = logging.getLogger(__name__)

# Options that one program reads and the other does not, and what that one goes by.
FOR_TRAINING = {
    "data.views": "the protocol chooses the views that are evaluated",
    "data.augment": "evaluation augments nothing",
    "data.cache": "evaluation reads each object once",
    "data.compositing": "evaluation measures against targets that are composited once",
    "data.micro_batch_size": "evaluation takes data.eval_batch_size objects at once",
    "data.train_split": "evaluation reads data.split",
    "data.val_split": "evaluation reads data.split",
    "data.max_train_objects": "evaluation reads data.max_test_objects",
    "data.max_val_objects": "evaluation reads data.max_test_objects",
}
FOR_EVALUATION = {
    "data.split": "training reads data.train_split and data.val_split",
    "data.max_test_objects": "training reads data.max_train_objects and data.max_val_objects",
}
# What each program cannot do without, what is the other's, and what to choose.
_CALLBACKS = {
    "train": (
        ("progress", "checkpoint_best", "checkpoint_last", "stop"),
        "measure",
        "use callbacks=train, train_ema or viewer, one's own beside it as callbacks=[train,<name>]; "
        "the others are evaluate.py's",
    ),
    "evaluate": (
        ("progress", "measure"),
        "checkpoint_last",
        "use callbacks=evaluate, turntable, views, … or several, callbacks=[turntable,views]; train, "
        "train_ema and viewer are train.py's",
    ),
}


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is made up: micro-batches of `micro` objects on `world_size` devices,
    `accumulation` times."""

    world_size: int
    micro: int
    accumulation: int

    @property
    def global_batch(self) -> int:
        """Objects an optimizer step."""
        return self.micro * self.world_size * self.accumulation


def plan_batches(cfg: DictConfig) -> BatchPlan:
    """Derive accumulation from train.global_batch_size; raises ValueError on a remainder."""
    world_size = num_devices(cfg) * cfg.trainer.num_nodes
    global_batch, micro = cfg.train.global_batch_size, cfg.data.micro_batch_size
    if global_batch is None:
        return BatchPlan(world_size, micro, accumulation=1)
    if global_batch < 1 or micro < 1:
        raise ValueError(
            f"train.global_batch_size={global_batch} and data.micro_batch_size={micro} must be at least 1"
        )
    at_once = micro * world_size
    if global_batch < at_once and global_batch % world_size == 0 and not _is_typed("data.micro_batch_size"):
        # A recipe's micro-batch is for one device: many devices share its batch in smaller ones.
        return BatchPlan(world_size, global_batch // world_size, accumulation=1)
    if global_batch % at_once:
        # The largest multiple below, for the advice.
        nearest = max(1, global_batch // at_once) * at_once
        raise ValueError(
            f"train.global_batch_size={global_batch} is not a multiple of data.micro_batch_size * devices "
            f"= {micro} * {world_size} = {at_once}; try {nearest}, or another data.micro_batch_size"
        )
    # Gradient accumulation is derived, never given: a remainder would change the batch size in silence.
    return BatchPlan(world_size, micro, global_batch // at_once)


def num_devices(cfg: DictConfig) -> int:
    """Devices a node, where `auto` and -1 mean all there are."""
    devices = cfg.trainer.devices
    if isinstance(devices, int) and devices > 0:
        return devices
    if devices in ("auto", -1, "-1"):
        # Lightning's `auto` on a CPU is one process.
        return 1 if cfg.trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    raise ValueError(f"trainer.devices={devices!r} must be a positive number, auto, or -1 for all")


def check_training(cfg: DictConfig) -> BatchPlan:
    """Check a training configuration before anything is built; returns its batch plan."""
    refuse_options(FOR_EVALUATION)
    check_data(cfg)
    check_callbacks(cfg, "train")
    check_devices(cfg)
    check_renderer(cfg)
    if cfg.trainer.precision in HALVES:
        raise ValueError(
            f"trainer.precision={cfg.trainer.precision} keeps the weights in half precision, which serves "
            "evaluation and loses what training adds to them; use trainer.precision=bf16-mixed"
        )
    if cfg.train.clip_grad_norm is not None and cfg.train.clip_grad_norm <= 0:
        raise ValueError(f"train.clip_grad_norm={cfg.train.clip_grad_norm} must be above 0, or null for none")
    minutes = cfg.train.checkpoint_every_minutes
    if minutes is not None and (not isinstance(minutes, int | float) or not minutes > 0):
        raise ValueError(f"train.checkpoint_every_minutes={minutes} must be above 0, or null for none")
    fraction = cfg.train.max_skipped_fraction
    if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        raise ValueError(f"train.max_skipped_fraction={fraction} must lie between 0 and 1")
    counts = (
        "max_steps",
        "val_every_steps",
        "checkpoint_every_steps",
        "log_every_steps",
        "max_skipped_in_a_row",
    )
    for key in counts:
        if not isinstance(cfg.train[key], int) or cfg.train[key] < 1:
            raise ValueError(
                f"train.{key}={cfg.train[key]} must be a whole number of optimizer steps, at least 1"
            )
    check_start(cfg)
    if cfg.train.max_steps > cfg.train.val_every_steps and cfg.train.max_steps % cfg.train.val_every_steps:
        log.warning(
            "train.max_steps=%d is no multiple of train.val_every_steps=%d: the last steps are not validated",
            cfg.train.max_steps,
            cfg.train.val_every_steps,
        )
    batches = plan_batches(cfg)
    if batches.micro != cfg.data.micro_batch_size:
        log.warning(
            "data.micro_batch_size=%d × %d devices is more than train.global_batch_size=%d: it is %d here",
            cfg.data.micro_batch_size,
            batches.world_size,
            batches.global_batch,
            batches.micro,
        )
        cfg.data.micro_batch_size = batches.micro
    return batches


def typed() -> list[tuple[str, str]] | None:
    """Overrides of the command line, each with its key, in which a group's slashes are dots; None
    where there was no command line."""
    if not HydraConfig.initialized():
        return None
    # As typed: an interpolation in it is not resolved.
    given = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [(override, override.lstrip("+~").split("=")[0].replace("/", ".")) for override in given]


def _is_typed(key: str) -> bool:
    return any(given == key for _, given in typed() or [])


def refuse_options(without_effect: dict[str, str]) -> None:
    """Raise for typed options that this program would not read: keys, and what it goes by instead."""
    for override, key in typed() or []:
        for option, instead in without_effect.items():
            # With the dots: `data.views.count` is of `data.views`, `data.views_of` is not.
            if f"{key}.".startswith(f"{option}."):
                raise ValueError(f"{override} would have no effect: {instead}; leave it out")


def check_start(cfg: DictConfig) -> None:
    """How to start from weights, where there are weights to start from."""
    check_choice(cfg.init_weights, "init_weights")
    for key, default in (("init_policy", "strict"), ("init_weights", "auto")):
        if cfg.init_from is None and cfg[key] != default:
            raise ValueError(
                f"{key}={cfg[key]} would have no effect without init_from=<weights>; leave it out"
            )


def check_run_dir(cfg: DictConfig) -> None:
    """Processes that each name the folder by their own clock would not find each other's checkpoints."""
    given = typed()
    if given is None or {"run_dir", "hydra.run.dir", "hydra.sweep.dir"} & {key for _, key in given}:
        return
    if cfg.trainer.num_nodes > 1 or starts_elsewhere():
        raise ValueError(
            f"trainer.num_nodes={cfg.trainer.num_nodes}, trainer.devices={cfg.trainer.devices}: processes "
            "that a cluster starts need run_dir=<a folder that all of them see>: by default it holds the "
            "time, which differs from one to the other"
        )


def check_search(cfg: DictConfig) -> None:
    """Raise ValueError for a search that is chosen in a single run: it would train the defaults, once."""
    chosen = next((override for override, key in typed() or [] if key == "hparams_search"), None)
    if chosen is None or current_trial() is not None or HydraConfig.get().mode == RunMode.MULTIRUN:
        return
    raise ValueError(f"{chosen} has no effect in a single run: python train.py -m {chosen} …")


def check_data(cfg: DictConfig) -> None:
    """Raise ValueError in one line for a data set without a path, and for a scene out of bounds."""
    check_scene(cfg)
    if "path" in cfg.data and cfg.data.path is None:
        raise ValueError(
            "data.path is not set: give data.path=<folder or URL prefix with index.json>, data=images "
            "data.path=<folder of images>, or data=quickstart for the bundled objects"
        )


def check_scene(cfg: DictConfig) -> None:
    """That the frame's own camera is one that shards and own images may have."""
    for key in ("fov_y_deg", "radius"):
        if not isinstance(cfg.scene[key], int | float):
            raise ValueError(f"scene.{key}={cfg.scene[key]} must be a number")
    if fault := fov_fault(cfg.scene.fov_y_deg):
        raise ValueError(f"scene.fov_y_deg={fault}")
    if not MIN_DISTANCE <= cfg.scene.radius <= MAX_DISTANCE:
        raise ValueError(
            f"scene.radius={cfg.scene.radius} must lie between {MIN_DISTANCE:g} and {MAX_DISTANCE:g}"
        )


def check_callbacks(cfg: DictConfig, program: str) -> None:
    """Raise ValueError where the chosen callbacks are the other program's: a training would keep no
    checkpoints, an evaluation would measure nothing. An entry that is set to null was meant.

    program: "train" or "evaluate".
    """
    needed, others, choice = _CALLBACKS[program]
    known = cfg.callbacks or {}
    missing = [name for name in needed if name not in known]
    if not missing and others not in known:
        return
    given = next((override for override, key in typed() or [] if key == "callbacks"), "callbacks")
    what = f"it has no {', '.join(missing)}" if missing else f"its {others} has no effect here"
    raise ValueError(f"{given} is not for {program}.py: {what}; {choice}")


def check_devices(cfg: DictConfig) -> None:
    """That there are as many devices as trainer.devices asks for, and as many processes started."""
    if cfg.trainer.accelerator in ("gpu", "cuda"):
        available, requested = torch.cuda.device_count(), num_devices(cfg)
        if available < requested:
            raise ValueError(
                f"trainer.devices={cfg.trainer.devices} needs {requested} GPUs and this machine shows "
                f"{available}; use trainer=cpu, or trainer.devices=<how many there are>"
            )
    check_launch(cfg, num_devices(cfg))
    check_run_dir(cfg)


def check_renderer(cfg: DictConfig) -> None:
    """A backend that only draws on GPUs, in a run that computes on the CPU."""
    try:
        backend = get_object(cfg.renderer._target_)
    except ImportError:
        return  # building it says what is wrong
    if backend is make_renderer:
        backend = BACKENDS.get(cfg.renderer.get("name", "auto"))
    accelerator = cfg.trainer.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    device_type = "cuda" if accelerator == "gpu" else str(accelerator)
    if isinstance(backend, type) and issubclass(backend, Renderer) and not backend.draws_on(device_type):
        name = next((name for name, known in BACKENDS.items() if known is backend), backend.__name__)
        raise ValueError(
            f"renderer={name} draws on NVIDIA GPUs, and trainer.accelerator={cfg.trainer.accelerator} "
            f"computes on {device_type}; choose renderer=auto, renderer=torch or trainer=gpu"
        )


def architecture(model: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration without what computes it: that may differ from machine to machine."""
    return {**model, "net": complete_net(model["net"])} if "net" in model else model
