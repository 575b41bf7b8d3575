"""Records: what a file of weights says of itself. A record is data.

A checkpoint's `config` and the metadata of a `.safetensors` are of unknown origin. Every entry point
(evaluation, init_from, from_pretrained, export, resume) takes them through this one: the network is a *name*
that is looked up in a table, its arguments have the types of its signature, everything else is a number, a
string, a boolean, None, a list or a dict of these. Nothing is imported by name, resolved or instantiated.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from lgm.cameras.checks import MAX_FOV_DEG, MIN_FOV_DEG
from lgm.errors import shown
from lgm.models.former_names import record_today
from lgm.models.plain_data import DOTTED_NAME, fits, plain, unlike
from lgm.models.registry import (
    DEFAULT,
    NETWORKS,
    MakeNetwork,
    arguments,
    misfits,
    name_of,
    network_of,
    parameters_of,
    shapes_of,
)

# Arguments by former names, with the values that mean the same today. `positions: rays` has no equal.
_FORMER = {"positions": ("anchors", {"free": "none"})}
SECTIONS = ("model", "scene", "resolution")  # what others build from a record

# Beyond these a record would only cost memory: four times what has been published, and more.
_RANGES = {
    "model.net.down_channels": (1, 16_384),
    "model.net.up_channels": (1, 16_384),
    "model.net.width": (1, 16_384),
    "model.net.depth": (1, 256),
    "model.net.num_heads": (1, 1024),
    "model.net.patch_size": (1, 256),
    "model.net.input_size": (1, 2048),
    "model.net.num_input_views": (1, 64),
    "scene.radius": (1e-3, 1e3),
    "scene.fov_y_deg": (MIN_FOV_DEG, MAX_FOV_DEG),
    "scene.background": (0.0, 1.0),
    "resolution.target_size": (1, 2048),
    "resolution.other_target_sizes": (1, 2048),
    "resolution.num_target_views": (1, 1024),
}
FIX = "fetch the file again, or export it anew with the program that wrote it"
_MOST_STARTS = 64  # weights that were started from weights that were started from …
# The sections of a run's configuration that it builds objects from, whose classes' names are on record.
BUILT = (
    "model",
    "renderer",
    "loss",
    "protocol",
    "data",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "multiview",
)


@dataclass(frozen=True)
class Model:
    """A record's model: its name, and the network's arguments."""

    name: str
    net: dict


@dataclass(frozen=True)
class Scene:
    """The options of configs/scene."""

    radius: float
    fov_y_deg: float
    background: tuple[float, float, float]


@dataclass(frozen=True)
class Resolution:
    """The options of configs/resolution."""

    target_size: int
    num_target_views: int | None
    other_target_sizes: Sequence[int] | None


@dataclass(frozen=True)
class Training:
    """How weights came about, as far as it is known: `lgm.models.pretrained.Weights.training`."""

    step: int
    seed: int
    device_minutes: float
    devices: str
    config: dict
    before: dict


def check_record(config: Any, chosen: MakeNetwork | None = None) -> dict[str, Any]:
    """Model, scene and resolution of a record, as plain values, its network under today's name.

    chosen: a network of one's own that the record may name as well. Its arguments are checked by its
        signature.

    Raises ValueError for anything else than these three with known keys and values of the expected types, and
    UnknownNetwork. Messages do not name the file: call it within `lgm.errors.reading`.
    """
    record = plain(config, built=("model",))
    if not isinstance(record, dict) or not all(isinstance(record.get(key), dict) for key in SECTIONS):
        raise ValueError("it records no model, scene and resolution of this program")
    _check_keys(record, SECTIONS, "")
    for section, schema in zip(SECTIONS, (Model, Scene, Resolution), strict=True):
        _check_fields(record[section], schema, f"{section}.")
    model = record["model"]
    if "net" not in model:
        raise ValueError("it records no model.net")
    # Names are shown in one-line messages and in file names of reports.
    if "\n" in (name := model.get("name", "")) or name == "???" or len(name) > 200:
        raise unlike("model.name", name, "a name")
    return {**record, "model": {**model, "net": _checked_net(model["net"], chosen)}}


def check_run(config: Any, chosen: MakeNetwork | None = None) -> dict[str, Any]:
    """A run's whole configuration, as a checkpoint holds it: `check_record` for what others build from it.

    The rest says how the run was made. It is compared and shown and never built, so that the names of classes
    (`_target_`) stand in it as names, where a run has them.
    """
    run = record_today(plain(config, built=BUILT, finite=False))
    if not isinstance(run, dict):
        raise ValueError("it records no model, scene and resolution of this program")
    return {**run, **check_record({key: run[key] for key in SECTIONS if key in run}, chosen)}


def check_training(training: Any) -> dict[str, Any]:
    """A record's entry of how its weights were trained (`Training`), as plain values; the configuration in it
    as `check_run` gives it, whose network is a name alone."""
    if not isinstance(training, dict):
        raise ValueError(f"its record of the training is {type(training).__name__}, not named values")
    known: dict[str, Any] = {}
    level, kept = training, None
    for _ in range(_MOST_STARTS):
        facts = plain({key: value for key, value in level.items() if key not in ("config", "before")})
        if "config" in level:
            facts["config"] = plain(level["config"], built=BUILT)
        kept = known if kept is None else kept.setdefault("before", {})
        kept |= facts
        _check_fields({**facts, **({"before": level["before"]} if "before" in level else {})}, Training, "")
        if "before" not in level:
            return known
        level = level["before"]
    raise ValueError(f"its record says more than {_MOST_STARTS} times what its weights started from")


def check_metrics(metrics: Any) -> dict[str, Any]:
    """A record's evaluations, by protocol, as plain values."""
    known = plain(metrics)
    if not isinstance(known, dict) or not all(isinstance(value, dict) for value in known.values()):
        raise ValueError("its record of metrics does not hold named values by protocol")
    return known


def check_shapes(record: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError where a checked record describes another network than its tensors are of, before
    memory is spent on it. Networks of one's own are compared when they are loaded."""
    net = record["model"]["net"]
    if net.get("_target_", DEFAULT) in NETWORKS:
        faults = misfits(shapes_of(network_of(net), arguments(net)), shapes)
        if faults:
            raise ValueError(f"its record is of another network than its tensors: {faults}")


def _checked_net(net: dict[str, Any], chosen: MakeNetwork | None) -> dict[str, Any]:
    name = net.get("_target_", DEFAULT)
    if not isinstance(name, str) or not DOTTED_NAME.fullmatch(name):
        raise unlike("model.net._target_", name, "the name of a network")
    network = network_of(net, chosen)
    options = {key: value for key, value in net.items() if key != "_target_"}
    if name in NETWORKS:
        name = name_of(network)
        for former, (today, values) in _FORMER.items():
            if former in options:
                value = options.pop(former)
                if today in options or not isinstance(value, str) or value not in values:
                    raise unlike(f"model.net.{former}", value, f"known today, where {today} stands for it")
                options[today] = values[value]
    parameters, hints = parameters_of(network), _hints(network)
    if not any(parameter.kind is parameter.VAR_KEYWORD for _, parameter in parameters):
        # The constructor's signature is the schema.
        _check_keys(options, [key for key, _ in parameters], "model.net.")
    for key, value in options.items():
        _check_value(f"model.net.{key}", value, hints.get(key, Any))
    for key, parameter in parameters:
        if key not in options and parameter.default is parameter.empty and parameter.kind not in _VARIADIC:
            raise ValueError(f"its record lacks model.net.{key}")
    return {"_target_": name, **options} if "_target_" in net else options


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _hints(network: MakeNetwork) -> dict[str, Any]:
    """The types of a network's arguments; none for one's own whose annotations cannot be resolved."""
    try:
        return get_type_hints(network.__init__ if inspect.isclass(network) else network)
    except Exception:  # names that are imported for type checkers alone
        if network in NETWORKS.values():
            raise
        return {}


def _check_keys(values: Mapping[str, Any], known: Iterable[str], prefix: str) -> None:
    for key in values:
        if key not in known:
            raise ValueError(f"its record has an unknown key, {shown(prefix + str(key), 100)}")


def _check_fields(values: Mapping[str, Any], schema: type, prefix: str) -> None:
    hints = get_type_hints(schema)
    _check_keys(values, hints, prefix)
    for key, value in values.items():
        _check_value(prefix + key, value, hints[key])


def _check_value(key: str, value: Any, hint: Any) -> None:
    if not fits(value, hint):
        raise unlike(
            key, value, f"of type {hint.__name__ if isinstance(hint, type) else hint}".replace("typing.", "")
        )
    low, high = _RANGES.get(key, (-math.inf, math.inf))
    numbers = value if isinstance(value, list) else [value]
    if key in _RANGES and not all(number is None or low <= number <= high for number in numbers):
        raise unlike(key, value, f"within {low:g} to {high:g}")
