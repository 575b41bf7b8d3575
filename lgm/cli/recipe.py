"""Recipes of older runs: what a resume and `init_from` keep of a run begun before configs/recipe existed.

Until then every model was trained as `recipe=published`. A model with a recipe of its own (mini, nano) has
other defaults today: an untyped default must neither change a run that goes on nor refuse its weights.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from lgm.cli.networks import chosen_network
from lgm.cli.validate import typed
from lgm.models.checkpoint import read_checkpoint
from lgm.models.pretrained import read_weights
from lgm.models.registry import MakeNetwork, complete_net

log = logging.getLogger(__name__)

FORMER = "published"
# Of `model.net`, what recipes set.
OF_NETWORKS = ("anchors", "draft_elevations_deg")


def keep_recorded(cfg: DictConfig) -> DictConfig:
    """The configuration with what an older run recorded in place of today's defaults, where the run goes on
    (`resume`) or its weights are started from (`init_from`); with one line. What was typed stays.

    Raises ValueError or FileNotFoundError in one line for weights that cannot be read.
    """
    if cfg.get("recipe") in (None, FORMER):
        return cfg
    network = chosen_network(cfg)
    record, path = _resumed(cfg, network)
    if record is not None:
        return cfg if "recipe" in record else _composed_as_before(cfg, path)
    if cfg.init_from is not None:
        _keep_network(cfg, network)
    return cfg


def _resumed(cfg: DictConfig, network: MakeNetwork | None) -> tuple[Mapping[str, Any] | None, Path | None]:
    """The record of the checkpoint that a resume goes on from. One that cannot be read is refused by the
    resume itself, with its reason."""
    if cfg.resume in (None, "none"):
        return None, None
    folder = Path(cfg.run_dir) / "checkpoints"
    paths = [folder / "last.ckpt", *sorted(folder.glob("previous*.ckpt"))]
    for path in paths if cfg.resume == "auto" else [Path(cfg.resume)]:
        try:
            return read_checkpoint(path, network)["config"], path
        except (ValueError, OSError):
            continue
    return None, None


def _composed_as_before(cfg: DictConfig, path: Path | None) -> DictConfig:
    given = typed()
    if given is None or any(key == "recipe" for _, key in given):
        return cfg
    overrides = [*(override for override, _ in given), f"recipe={FORMER}"]
    before = compose(HydraConfig.get().job.config_name, overrides=overrides)
    OmegaConf.update(before, "run_dir", cfg.run_dir)  # the time in its default is another by now
    log.warning(
        "resume: %s is of a run without recipe=: it goes on by recipe=%s, as it was begun, not by recipe=%s",
        path,
        FORMER,
        cfg.recipe,
    )
    return before


def _keep_network(cfg: DictConfig, network: MakeNetwork | None) -> None:
    given = typed()
    keys = {"experiment", *(f"model.net.{argument}" for argument in OF_NETWORKS)}
    if given is None or keys & {key for _, key in given}:
        return  # asked for, or nobody knows: weights that do not fit are refused
    weights = read_weights(cfg.init_from, cfg.init_weights, network)
    if weights.config is None:
        recorded: Mapping[str, Any] = {"anchors": "none", "draft_elevations_deg": None}  # as released
    else:
        recorded = complete_net(weights.config["model"]["net"])
    kept = {}
    for argument in OF_NETWORKS:
        if argument in recorded and argument in cfg.model.net:
            value = recorded[argument]
            value = list(value) if isinstance(value, list | tuple) else value
            if value != cfg.model.net[argument]:
                kept[argument] = value
    if kept:
        with open_dict(cfg):
            cfg.model.net.update(kept)
        log.warning(
            "init_from=%s: the network is as its weights were trained, not as by recipe=%s: %s",
            cfg.init_from,
            cfg.recipe,
            ", ".join(f"model.net.{key}={'null' if value is None else value}" for key, value in kept.items()),
        )
