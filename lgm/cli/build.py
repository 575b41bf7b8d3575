"""From configuration to objects: the only caller of `hydra.utils.instantiate`."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lgm.callbacks.order import ordered
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.files import write_text
from lgm.kernels import kernels_for, use_kernels
from lgm.lightning_internals import take_over
from lgm.loggers.guarded import guarded
from lgm.losses import CompositeLoss
from lgm.masking import masked_values
from lgm.models import Network
from lgm.preparation.prepare import Preparation
from lgm.training.checkpoint_io import AtomicCheckpointIO
from lgm.training.module import LGMModule
from lgm.training.peers import watch_peers
from lgm.training.precision import HALVES, HalfWeights

log = logging.getLogger(__name__)

# Keys of `data` that the datamodule takes as they are.
_DATA_OPTIONS = ("micro_batch_size", "eval_batch_size", "num_workers", "train_split", "val_split", "split")
_DATA_OPTIONS += ("max_train_objects", "max_val_objects", "max_test_objects")
_DATA_OPTIONS += ("max_broken_fraction", "probe_objects")


def build_net(cfg: DictConfig) -> Network:
    net = instantiate(cfg.model.net)
    if not isinstance(net, Network):
        raise ValueError(
            f"model.net._target_={cfg.model.net._target_} makes a {type(net).__name__}, not an "
            "lgm.models.Network; derive it from that class (docs/extend.md)"
        )
    return net


def build_datamodule(cfg: DictConfig, **derived: Any) -> ObjectDataModule:
    """The streams of `data`, measured by `protocol`.

    derived: what follows from other keys, e.g. accumulation.
    """
    options = {name: cfg.data[name] for name in _DATA_OPTIONS}
    return ObjectDataModule(
        source=instantiate(cfg.data.source),
        train_views=instantiate(cfg.data.views),
        eval_views=instantiate(cfg.protocol.views),
        cache=instantiate(cfg.data.cache),
        seed=cfg.train.seed,
        eval_seed=cfg.protocol.seed,
        **{**options, **derived},
    )


def build_module(cfg: DictConfig, net: Network, batch_size: int | None) -> LGMModule:
    """The LightningModule around a network.

    batch_size: objects an optimizer step; None builds it for evaluation, which has no use for loss,
        optimizer and schedule.
    """
    renderer, eval_preparation = instantiate(cfg.renderer), build_eval_preparation(cfg, net)
    if batch_size is None:
        return LGMModule(net, renderer, eval_preparation, eval_views_per_call=cfg.data.eval_views_per_call)
    preparation = Preparation(
        input_size=net.input_size,
        target_size=cfg.resolution.target_size,
        background=tuple(cfg.scene.background),
        radius=cfg.scene.radius,
        augmentation=instantiate(cfg.data.augment),
        # Runs that were begun before there was this key have none.
        other_target_sizes=tuple(cfg.resolution.get("other_target_sizes") or ()),
    )
    return LGMModule(
        net,
        renderer,
        preparation,
        eval_preparation=eval_preparation,
        loss=build_loss(cfg),
        optimizer=instantiate(cfg.optimizer, batch_size=batch_size),
        scheduler=instantiate(cfg.scheduler),
        clip_grad_norm=cfg.train.clip_grad_norm,
        eval_views_per_call=cfg.data.eval_views_per_call,
        config=recorded(cfg),
    )


def build_eval_preparation(cfg: DictConfig, net: Network) -> Preparation:
    """What validation and evaluation do to a batch: as the protocol says, whatever training does."""
    return Preparation(
        input_size=net.input_size,
        target_size=cfg.protocol.target_size,
        background=tuple(cfg.protocol.background),
        input_background=tuple(cfg.scene.background),
        radius=cfg.protocol.input_radius,
        disturbance=instantiate(cfg.protocol.get("disturbance")),
    )


def build_loss(cfg: DictConfig) -> CompositeLoss:
    """The loss of a run of train.max_steps. A term that the run never reaches is not even built: LPIPS
    would read, or fetch, half a gigabyte for nothing. Nor is one that is set to null. Its fused operations
    are chosen as the network's are, model.net.kernels; where it takes none, by `speed`."""
    loss = plain(cfg.loss)
    for name, term in list(loss["terms"].items()):
        if term is None:
            del loss["terms"][name]
        elif term.get("weight", 1.0) == 0 or term.get("start_step", 0) >= cfg.train.max_steps:
            log.info("loss.terms.%s is left out: weight=0, or start_step after the last step", name)
            del loss["terms"][name]
    built = instantiate(loss)
    use_kernels(built, plain(cfg.model.net).get("kernels") or kernels_for(cfg.speed, None))
    return built


def build_callbacks(cfg: DictConfig) -> dict[str, L.Callback]:
    """By the names that the configuration gives them; an entry set to null is left out."""
    return {name: instantiate(entry) for name, entry in (cfg.callbacks or {}).items() if entry is not None}


def build_trainer(cfg: DictConfig, callbacks: dict[str, L.Callback], **derived: Any) -> L.Trainer:
    """derived: what follows from other keys, e.g. accumulation."""
    plugins: list[Any] = [AtomicCheckpointIO()]
    if cfg.trainer.precision in HALVES:
        plugins.append(HalfWeights(cfg.trainer.precision))
        derived["precision"] = None
    loggers = [
        guarded(instantiate(entry), name)
        for name, entry in (cfg.get("logger") or {}).items()
        if entry is not None
    ]
    watch_peers()
    trainer = instantiate(
        cfg.trainer,
        callbacks=ordered(callbacks.values()),
        logger=loggers or False,
        plugins=plugins,
        **derived,
    )
    return take_over(trainer)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with everything resolved, as dicts, lists and numbers."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def recorded(cfg: DictConfig) -> dict[str, Any]:
    """What files, checkpoints and loggers keep of the configuration: `plain`, credentials masked."""
    return masked_values(plain(cfg))


def save_config(cfg: DictConfig, run_dir: Path) -> None:
    """Write `<run_dir>/config.yaml`, resolved, credentials masked."""
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(recorded(cfg))))
