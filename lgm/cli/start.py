"""Starting a training from weights: `init_from`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from lgm.cli.values import plain
from lgm.models import Network
from lgm.models.pretrained import read_weights, start_from
from lgm.models.registry import MakeNetwork, complete_net

log = logging.getLogger(__name__)


def start(config: Mapping[str, Any], net: Network, network: MakeNetwork | None) -> dict[str, Any]:
    """Fill the network with the weights that `init_from` names; return what these say of their training.

    network: what the configuration names (`Plan.network`), which records of weights may name too.
    """
    where = config["init_from"]
    weights = read_weights(where, config["init_weights"], network)
    start_from(net, weights, config["init_policy"])
    configured = complete_net(plain(config)["model"]["net"])
    if weights.config is not None:
        trained = complete_net(weights.config["model"]["net"])
        if trained["_target_"] != configured["_target_"]:
            log.warning(
                "init_from=%s was trained as %s, this network is %s",
                where,
                trained["_target_"],
                configured["_target_"],
            )
    else:
        trained = net.unrecorded_arguments(weights.path)
    for key in net.decisive_arguments:  # not seen in tensors, which mean nothing without
        if key in trained and key in configured and trained[key] != configured[key]:
            then, now = (
                json.dumps(value, separators=(",", ":")).strip('"')
                for value in (trained[key], configured[key])
            )
            raise ValueError(
                f"init_from={where} was trained with {key}={then}, this network has {now}; set "
                f"model.net.{key}={then}"
            )
    for key in net.noted_arguments:
        if key in trained and key in configured and trained[key] != configured[key]:
            log.warning(
                "init_from=%s was trained with %s=%s, this network has %s",
                where,
                key,
                trained[key],
                configured[key],
            )
    net.started_from(trained)
    return weights.training
