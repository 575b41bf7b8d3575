"""Adoption of model, scene and resolution from the weights that are evaluated: their record, or their
shapes.
"""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from lgm.cli.recipe import OF_NETWORKS
from lgm.cli.resolvers import OWN_RECIPES
from lgm.cli.validate import architecture, typed
from lgm.kernels import kernels_for
from lgm.models.plain_data import changes
from lgm.models.pretrained import Weights, options_of
from lgm.models.registry import (
    COMPUTED_BY,
    DEFAULT,
    NETWORKS,
    MakeNetwork,
    complete_net,
    network_of,
    same_network,
    takes,
)

log = logging.getLogger(__name__)


def adopt(cfg: DictConfig, stored: dict[str, Any], chosen: MakeNetwork | None = None) -> None:
    """Take model, scene and resolution from a record that `lgm.models.records` has checked.

    chosen: the network that cfg.model names. A record's own name is then compared with it, and not imported.
    """
    for override, key in typed() or []:
        if key.split(".")[0] in ("scene", "resolution"):
            raise ValueError(f"{override} would have no effect: ckpt={cfg.ckpt} brings its own; leave it out")
        backend = key.removeprefix("model.net.")
        if backend != key and backend in COMPUTED_BY:
            value = override.partition("=")[2]
            raise ValueError(f"{override} would have no effect beside a .ckpt; give {backend}={value}")
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
        if kept := _by_recipe(asked, net):
            asked["net"] |= kept
        differing = list(changes(architecture({**model, "net": net}), architecture(asked), "model"))
        if differing:
            raise ValueError(
                f"ckpt={cfg.ckpt} holds another network than model={asked.get('name')}: "
                f"{', '.join(differing)}; leave model=… out"
            )
    with open_dict(cfg):
        cfg.model = {**model, "net": net}
        cfg.scene, cfg.resolution = stored["scene"], stored["resolution"]


def _by_recipe(asked: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """What training's recipe sets of a network and its file of configs/model does not: as recorded, unless it
    was typed."""
    given = typed()
    if given is None or asked.get("name") not in OWN_RECIPES:
        return {}
    keys = {key for _, key in given}
    return {key: recorded[key] for key in OF_NETWORKS if key in recorded and f"model.net.{key}" not in keys}


def infer(cfg: DictConfig, weights: Weights) -> None:
    """Take the architecture from the shapes of weights without a record, as the released ones are."""
    network = NETWORKS[DEFAULT]
    options = options_of(weights, network, {"kernels": "auto"})
    net = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    with open_dict(cfg):
        # With all other arguments as they default: protocols refer to num_input_views.
        net = {**complete_net({"_target_": DEFAULT, **net}), "kernels": "auto"}
        cfg.model = {"name": weights.path.stem.replace("$", ""), "net": net}
        if not any(key.split(".")[0] == "resolution" for _, key in typed() or []):
            cfg.resolution.target_size = network.inferred(weights.tensors)[1]
    log.info(
        "%s records no model: down_channels=%s up_channels=%s by its shapes, target_size=%d; input_size=%d "
        "and anchors=%s are assumed, as released weights have them",
        weights.path,
        net["down_channels"],
        net["up_channels"],
        cfg.resolution.target_size,
        net["input_size"],
        net["anchors"],
    )


def set_backends(cfg: DictConfig, chosen: MakeNetwork | None) -> None:
    """Set what computes the network, where it was asked for (`speed`, `kernels`, `attention`).

    Raises ValueError in one line where the network takes no such argument.
    """
    with open_dict(cfg):
        given = cfg.kernels
        cfg.kernels = kernels_for(cfg.speed, given)
        for argument in COMPUTED_BY:
            if cfg[argument] is None:
                continue
            if takes(network_of(cfg.model.net, chosen), argument):
                cfg.model.net[argument] = cfg[argument]
            elif argument != "kernels" or given is not None:  # PyTorch's own are both of `speed`'s
                raise ValueError(
                    f"{argument}={cfg[argument]} would have no effect: {cfg.model.net._target_} takes no "
                    f"{argument}; leave it out"
                )


def set_resize(cfg: DictConfig, weights: Weights) -> None:
    """Have input images shrunk as in training, unless `data.resize` says otherwise."""
    trained, asked = weights.input_resize, cfg.data.get("resize")
    if asked is not None and asked != trained:
        log.warning("data.resize=%s: %s was trained with data.resize=%s", asked, weights.path, trained)
    elif asked is None and trained != "antialiased":
        log.info("data.resize=%s: as %s was trained", trained, weights.path)
    with open_dict(cfg):
        cfg.data.resize = asked or trained
