"""From configuration to objects: the only caller of `hydra.utils.instantiate`."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lgm.callbacks.order import ordered
from lgm.cli.values import plain, recorded
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.files import write_text
from lgm.kernels import kernels_for, use_kernels
from lgm.lightning_internals import take_over
from lgm.loggers.guarded import guarded
from lgm.losses import CompositeLoss
from lgm.models import Network
from lgm.preparation.prepare import Preparation
from lgm.refinement import Refinement
from lgm.training.checkpoint_io import AsyncCheckpointIO
from lgm.training.mirror import Mirror
from lgm.training.module import LGMModule
from lgm.training.peers import watch_peers
from lgm.training.precision import HALVES, HalfWeights
from lgm.training.skipped_steps import SkippedSteps

log = logging.getLogger(__name__)

# Keys of `data` that the datamodule takes as they are.
_DATA_OPTIONS = (
    *("micro_batch_size", "eval_batch_size", "num_workers", "train_split", "val_split", "split"),
    *("max_train_objects", "max_val_objects", "max_test_objects"),
    *("max_broken_fraction", "probe_objects"),
)


Given = Sequence[tuple[type[L.Callback], Mapping[str, Any]]]
Config = Mapping[str, Any]  # a plan's, or a composed one


def build_net(config: Config) -> Network:
    """The network of `model.net`; ValueError where that is not an `lgm.models.Network`."""
    net = made(config["model"]["net"])
    if not isinstance(net, Network):
        raise ValueError(
            f"model.net._target_={config['model']['net']['_target_']} makes a {type(net).__name__}, not an "
            "lgm.models.Network; derive it from that class (docs/extend.md)"
        )
    return net


def build_datamodule(config: Config, **derived: Any) -> ObjectDataModule:
    """The streams of `data`, measured by `protocol`.

    derived: what follows from other keys, e.g. accumulation.
    """
    data, protocol = config["data"], config["protocol"]
    options = {name: data[name] for name in _DATA_OPTIONS}
    return ObjectDataModule(
        source=made(data["source"]),
        train_views=made(data["views"]),
        eval_views=made(protocol["views"]),
        cache=made(data["cache"]),
        seed=config["train"]["seed"],
        eval_seed=protocol["seed"],
        **{**options, **derived},
    )


def build_module(config: Config, net: Network, batch_size: int | None) -> LGMModule:
    """The LightningModule around a network.

    batch_size: objects an optimizer step; None builds it for evaluation, which has no use for loss,
        optimizer and schedule.
    """
    renderer, eval_preparation = made(config["renderer"]), build_eval_preparation(config, net)
    at_once = config["data"]["eval_views_per_call"]
    if batch_size is None:
        return LGMModule(
            net,
            renderer,
            eval_preparation,
            eval_views_per_call=at_once,
            refinement=Refinement(**config["refine"]),
        )
    preparation = Preparation(
        input_size=net.input_size,
        target_size=config["resolution"]["target_size"],
        background=tuple(config["scene"]["background"]),
        radius=config["scene"]["radius"],
        augmentation=made(config["data"]["augment"]),
        # Runs that were begun before there was this key have none.
        other_target_sizes=tuple(config["resolution"].get("other_target_sizes") or ()),
        resize=config["data"].get("resize") or "antialiased",
        compositing=config["data"].get("compositing") or "once",
    )
    return LGMModule(
        net,
        renderer,
        preparation,
        eval_preparation=eval_preparation,
        loss=build_loss(config),
        # Partials: the module makes the optimizer once Lightning has placed (or sharded) the parameters.
        optimizer=made(config["optimizer"], batch_size=batch_size),
        scheduler=made(config["scheduler"]),
        clip_grad_norm=config["train"]["clip_grad_norm"],
        eval_views_per_call=at_once,
        config=recorded(config),
        skipped_steps=SkippedSteps(
            config["train"]["max_skipped_in_a_row"], config["train"]["max_skipped_fraction"]
        ),
    )


def build_eval_preparation(config: Config, net: Network) -> Preparation:
    """The `Preparation` of validation and evaluation: as the protocol says, whatever training does."""
    protocol = config["protocol"]
    return Preparation(
        input_size=net.input_size,
        target_size=protocol["target_size"],
        background=tuple(protocol["background"]),
        input_background=tuple(config["scene"]["background"]),
        radius=protocol["input_radius"],
        disturbance=made(protocol.get("disturbance")),
        resize=config["data"].get("resize") or "antialiased",
    )


def build_loss(config: Config) -> CompositeLoss:
    """The loss of a run of train.max_steps. A term that the run never reaches is not even built: LPIPS
    would read, or fetch, half a gigabyte for nothing. Nor is one that is set to null. Its fused operations
    are chosen as the network's are, model.net.kernels; where it takes none, by `speed`."""
    loss = plain(config["loss"])
    terms = {name: term for name, term in loss["terms"].items() if term is not None}
    for name, term in list(terms.items()):
        if term.get("weight", 1.0) == 0 or term.get("start_step", 0) >= config["train"]["max_steps"]:
            log.info("loss.terms.%s is left out: weight=0, or start_step after the last step", name)
            del terms[name]
    built = made({**loss, "terms": terms})
    use_kernels(built, config["model"]["net"].get("kernels") or kernels_for(config["speed"], None))
    return built


def build_callbacks(config: Config, given: Given = ()) -> dict[str, L.Callback]:
    """By the names that the configuration gives them; an entry set to null is left out.

    given: classes, and further arguments of their constructors.
    """
    entries = {name: entry for name, entry in (config["callbacks"] or {}).items() if entry is not None}
    return {name: _finished(entry, given) for name, entry in entries.items()}


def _finished(entry: Config, given: Given) -> L.Callback:
    for kind, arguments in given:
        factory = made(entry, _partial_=True)
        if isinstance(factory.func, type) and issubclass(factory.func, kind):
            return factory(**arguments)  # not through Hydra, which would build what they hold
    return made(entry)


def build_mirror(config: Config) -> Mirror | None:
    """Where the run's checkpoints are uploaded to, None for nowhere. Raises ValueError where the store
    cannot be asked, before any long work."""
    url = (config.get("checkpoints") or {}).get("mirror")
    if url is None:
        return None
    strategy = config["trainer"]["strategy"]
    if isinstance(strategy, Mapping) and str(strategy["_target_"]).endswith("FSDPStrategy"):
        raise ValueError(
            "checkpoints.mirror uploads single files, and trainer=fsdp writes shards; use "
            "checkpoints.mirror=null and copy checkpoints/last.sharded by a tool of the store"
        )
    mirror = Mirror(url)
    mirror.names()
    return mirror


def build_trainer(
    config: Config, callbacks: dict[str, L.Callback], mirror: Mirror | None = None, **derived: Any
) -> L.Trainer:
    """mirror: of the checkpoints; derived: what follows from other keys, e.g. accumulation."""
    plugins: list[Any] = [AsyncCheckpointIO(mirror)]
    if config["trainer"]["precision"] in HALVES:
        plugins.append(HalfWeights(config["trainer"]["precision"]))
        # Lightning refuses a precision beside a precision plugin.
        derived["precision"] = None
    loggers = [
        guarded(made(entry), name)
        for name, entry in (config.get("logger") or {}).items()
        if entry is not None
    ]
    watch_peers()
    trainer = made(
        {**config["trainer"], "strategy": _patient(config["trainer"]["strategy"], config)},
        callbacks=ordered(callbacks.values()),
        logger=loggers or False,
        plugins=plugins,
        **derived,
    )
    return take_over(trainer)


def _patient(strategy: Any, config: Config) -> Any:
    """A strategy whose collectives give up after the watchdog has: on their own, NCCL's after ten minutes and
    gloo's after thirty, they name no rank."""
    minutes = (config.get("train") or {}).get("watchdog_minutes")
    is_known = isinstance(strategy, Mapping) and str(strategy["_target_"]).endswith(
        ("DDPStrategy", "FSDPStrategy")
    )
    if not is_known or minutes is None or "timeout" in strategy:
        return strategy
    return {**strategy, "timeout": {"_target_": "datetime.timedelta", "minutes": max(30.0, minutes + 10)}}


def save_config(config: Config, run_dir: Path) -> None:
    """Write `<run_dir>/config.yaml`, resolved, credentials masked."""
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(recorded(config))))


def made(spec: Any, **further: Any) -> Any:
    """The object that a section of the configuration describes by its `_target_`; None for None.

    spec: plain values; `${` in an argument that is a text is the text's.
    """
    # Twice: Hydra resolves what it is given, and reads the result once more.
    return instantiate(spec if isinstance(spec, DictConfig) else _literal(_literal(spec)), **further)


def _literal(value: Any) -> Any:
    """Values that OmegaConf gives back as they were."""
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", value)
    return value
