"""The networks that this program knows by name, and what can be said of one without building it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from lgm.errors import shown

MakeNetwork = Callable[..., nn.Module]  # the class of a `lgm.models.network.Network`, or a function


class NetworkTable(Mapping[str, type[nn.Module]]):
    """Networks by the names that records may give them. A class is imported when its name is looked up, by
    the path that stands in this table and never by what a record says: readers of records then need not
    import the networks, whose `from_pretrained` imports the readers.

    targets: the module and the class of each name, joined by a dot.
    """

    def __init__(self, targets: Mapping[str, str]) -> None:
        self._targets = dict(targets)

    def __getitem__(self, name: str) -> type[nn.Module]:
        module, _, cls = self._targets[name].rpartition(".")
        return getattr(import_module(module), cls)

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)


# What a record may name, under every name that it has had; the first is today's.
NETWORKS = NetworkTable(
    {
        "lgm.models.LGM": "lgm.models.lgm.LGM",
        "lgm.models.lgm.LGM": "lgm.models.lgm.LGM",
        "lgm.models.PatchTransformer": "lgm.models.transformer.PatchTransformer",
    }
)
COMPUTED_BY = ("attention", "kernels")  # arguments that are no part of an architecture
DEFAULT = "lgm.models.LGM"  # of records that name none
_SHOWN = 5


class UnknownNetwork(ValueError):
    """A record names a network that is neither in the table nor passed by the caller."""


def complete_net(net: Mapping[str, Any]) -> dict[str, Any]:
    """A `model.net` with what computes it left out, and with the defaults of arguments that did not exist
    when it was written; its network under today's name."""
    name = net.get("_target_") or DEFAULT
    complete = dict(net)
    if name in NETWORKS:
        parameters = parameters_of(NETWORKS[name])
        complete = {key: p.default for key, p in parameters if p.default is not p.empty} | complete
        name = name_of(NETWORKS[name])
    complete["_target_"] = name
    return {key: value for key, value in complete.items() if key not in COMPUTED_BY}


def arguments(net: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `model.net` that the network itself takes, without those of its kernels."""
    return {key: value for key, value in complete_net(net).items() if key != "_target_"}


def shapes_of(network: MakeNetwork, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a network with these options, without memory for them."""
    with torch.device("meta"):
        net = network(**options)
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def same_network(recorded: str, chosen: MakeNetwork) -> bool:
    """Whether a record's name is that of a network in hand. A class is imported from more places than the
    module that defines it: the package and the class's own name decide."""
    if recorded in NETWORKS:
        return NETWORKS[recorded] is chosen
    name = f"{getattr(chosen, '__module__', '')}.{getattr(chosen, '__qualname__', '')}"
    return all(recorded.split(".")[end] == name.split(".")[end] for end in (0, -1))


def network_of(net: Mapping[str, Any], chosen: MakeNetwork | None = None) -> MakeNetwork:
    """The network that a checked `model.net` names; raises UnknownNetwork."""
    name = net.get("_target_", DEFAULT)
    if name in NETWORKS:
        return NETWORKS[name]
    if chosen is not None and same_network(name, chosen):
        return chosen
    raise UnknownNetwork(
        f"records model.net._target_={shown(name, 100)}, a network that this program does not know and does "
        "not import because a file says so; if it is yours, choose it: model=<its yaml> or "
        "+model.net._target_=<its name>, in Python <its class>.from_pretrained"
    )


def name_of(network: MakeNetwork) -> str:
    """Today's name of a network of the table, e.g. `lgm.models.LGM`."""
    return next(name for name, known in NETWORKS.items() if known is network)


def parameters_of(network: MakeNetwork) -> list[tuple[str, inspect.Parameter]]:
    """Names and parameters of a network's constructor, in order."""
    return list(inspect.signature(network).parameters.items())


def takes(network: MakeNetwork, argument: str) -> bool:
    """Whether a network's constructor has an argument of that name."""
    return any(name == argument or p.kind is p.VAR_KEYWORD for name, p in parameters_of(network))


def misfits(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str:
    """How many tensors are missing, unexpected or of another shape, and the first five names of each; nothing
    where all fit."""
    kinds = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {tuple(given[name])} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in given and tuple(given[name]) != tuple(shape)
        ],
    }
    return "; ".join(f"{len(names)} {kind} ({_first_of(names)})" for kind, names in kinds.items() if names)


def _first_of(names: list[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(shown(name, 100) for name in names[:_SHOWN]) + more
