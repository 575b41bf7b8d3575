"""The network that a configuration names, which records may then name as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from lgm.cli.values import plain
from lgm.errors import first_line
from lgm.models import Network
from lgm.models.records import check_run
from lgm.models.registry import MakeNetwork


def chosen_network(config: DictConfig | Mapping[str, Any]) -> MakeNetwork | None:
    """The network that the configuration names, and a record may then name too; None without one."""
    model = config.get("model") or {}
    name = (model.get("net") or {}).get("_target_")
    return None if name is None else network_named(name, "model.net._target_")


def network_named(name: str, option: str) -> MakeNetwork:
    """The class that a person has named; ValueError in one line where it cannot be imported."""
    try:
        network = get_object(name)
    except Exception as error:  # whatever the module raises that is imported
        cause = error if error.__cause__ is None else error.__cause__
        raise ValueError(f"{option}={name} cannot be loaded: {first_line(cause)}") from error
    if not callable(network):
        raise ValueError(f"{option}={name} is {type(network).__name__}, not a network")
    if isinstance(network, type) and not issubclass(network, Network):
        raise ValueError(
            f"{option}={name} is not an lgm.models.Network; derive it from that class (docs/extend.md)"
        )
    return network


def check_recordable(cfg: DictConfig, network: MakeNetwork | None) -> None:
    """Raise ValueError where a checkpoint of this run would be refused by those that read it.

    network: what `chosen_network` says of the configuration.
    """
    config = plain(cfg)
    try:
        check_run(config, network)
    except ValueError as error:
        raise ValueError(
            f"a checkpoint of this run could not be read: {error}; what a run records is plain data, and "
            "a network builds its parts itself"
        ) from error
