"""The search space of a sweep, in Hydra's own notation for sweeps:

    optimizer.lr: tag(log, interval(1e-5, 1e-2))      a real number, uniform in its logarithm
    optimizer.weight_decay: interval(0, 0.2)          a real number
    data.micro_batch_size: range(2, 9, 2)             2, 4, 6, 8: as Python, without the end
    model.net.num_heads: int(interval(1, 16))         a whole number from 1 to 16
    scheduler: choice(warmup_cosine, constant)        one of them; a group or a value
    scheduler.warmup_steps:                           only where another one has such a value
      space: range(0, 500, 100)
      when: {scheduler: [warmup_cosine]}

A command line may add to it or replace one: `'optimizer.lr=interval(1e-4,1e-3)'`, `train.seed=0,1,2`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from lgm.errors import first_line, shown

_FORMS = "interval(a, b), range(a, b), choice(a, b, …), int(interval(a, b)) or tag(log, interval(a, b))"


class Suggests(Protocol):
    """As much of an Optuna trial as a search space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """A number between low and high, both included. step: distance of the values; None is any."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """A whole number between low and high, both included."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """One of the choices."""
        ...


@dataclass(frozen=True)
class Parameter:
    """One key and what it may be.

    choices: texts as overrides have them; None for a number between low and high, both included.
    step: distance of the values of a number; None is any. when: values of others for which it is set.
    """

    key: str
    choices: tuple[str, ...] | None = None
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    is_int: bool = False
    is_log: bool = False
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def suggested(self, trial: Suggests) -> str:
        """A value by the study's sampler, as an override has it."""
        if self.choices is not None:
            return trial.suggest_categorical(self.key, self.choices)
        if self.is_int:
            step = int(self.step or 1)
            return str(trial.suggest_int(self.key, int(self.low), int(self.high), step=step, log=self.is_log))
        # repr gives the shortest text that reads back as the same number.
        return repr(trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.is_log))

    def described(self) -> str:
        """Canonical text: studies of equal texts are of one search space."""
        what: Any = list(self.choices) if self.choices is not None else [self.low, self.high, self.step]
        kind = "choice" if self.choices is not None else "int" if self.is_int else "float"
        words = [kind, *(["log"] if self.is_log else []), json.dumps(what)]
        return " ".join([*words, *(["when", json.dumps(self.when)] if self.when else [])])


@dataclass(frozen=True)
class Space:
    """parameters: those that others depend on come first."""

    parameters: tuple[Parameter, ...]

    def suggested(self, trial: Suggests) -> dict[str, str]:
        """The values of a trial by key; a parameter whose condition is not met is left out."""
        values: dict[str, str] = {}
        for parameter in self.parameters:
            if all(values.get(key) in allowed for key, allowed in parameter.when):
                values[parameter.key] = parameter.suggested(trial)
        return values

    def described(self) -> dict[str, str]:
        """Canonical text of each parameter by key; equal ones are one search space."""
        return {parameter.key: parameter.described() for parameter in self.parameters}


def search_space(params: Mapping[str, Any], overrides: Iterable[Override]) -> Space:
    """The space of `hydra.sweeper.params`, with the sweeps of a command line added or in their place.

    Raises ValueError naming the parameter, what it holds and which forms there are.
    """
    known = {key: _parameter(key, spec) for key, spec in params.items() if spec is not None}
    for override in overrides:
        key = override.get_key_element()
        known[key] = replace(_of_override(key, override), when=known[key].when if key in known else ())
    if not known:
        raise ValueError(
            "hydra.sweeper.params is empty: there is nothing to search; choose hparams_search=tpe, or give "
            f"a key as {_FORMS}"
        )
    return Space(tuple(_in_order(known)))


def _parameter(key: str, spec: Any) -> Parameter:
    when: dict[str, Any] = {}
    if isinstance(spec, Mapping):
        if not {"space"} <= set(spec) <= {"space", "when"}:
            raise _unknown(key, spec)
        spec, when = spec["space"], dict(spec.get("when") or {})
    parser = OverridesParser.create()
    try:
        override = parser.parse_override(f"{key}={spec}")
    except HydraException as error:
        raise ValueError(f"hydra.sweeper.params: {key}: {first_line(error)}; give {_FORMS}") from error
    conditions = tuple((name, tuple(map(str, _listed(values)))) for name, values in when.items())
    return replace(_of_override(key, override), when=conditions)


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else [values]


def _of_override(key: str, override: Override) -> Parameter:
    value = override.value()
    is_log = "log" in getattr(value, "tags", ())
    if isinstance(value, ChoiceSweep):
        if is_log:
            raise ValueError(f"hydra.sweeper.params: {key}: tag(log, …) is for intervals, not for choices")
        return Parameter(key, choices=tuple(override.sweep_string_iterator()))
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        is_int = isinstance(low, int) and isinstance(high, int)
        return _checked(Parameter(key, low=low, high=high, is_int=is_int, is_log=is_log))
    if isinstance(value, RangeSweep):
        return _checked(replace(_of_range(key, value), is_log=is_log))
    raise _unknown(key, override.get_value_element_as_str())


def _of_range(key: str, value: RangeSweep) -> Parameter:
    numbers = list(value.range())
    if not numbers:
        raise ValueError(f"hydra.sweeper.params: {key}: range({value.start},{value.stop}) holds no number")
    low, high = min(numbers), max(numbers)
    is_int = all(isinstance(number, int) for number in numbers)
    return Parameter(key, low=low, high=high, step=abs(value.step), is_int=is_int)


def _checked(parameter: Parameter) -> Parameter:
    fault = ""
    if not (math.isfinite(parameter.low) and math.isfinite(parameter.high)):
        fault = "its ends must be finite"
    elif parameter.low > parameter.high:
        fault = "its first end must not lie above its second"
    elif parameter.is_log and parameter.low <= 0:
        fault = "a logarithmic one must begin above 0"
    elif parameter.is_log and parameter.step not in (None, 1):
        fault = "a logarithmic one has no steps"
    if fault:
        raise ValueError(
            f"hydra.sweeper.params: {parameter.key}: {parameter.low:g} to {parameter.high:g}: {fault}"
        )
    # Optuna takes no step beside a logarithm.
    return replace(parameter, step=None) if parameter.is_log else parameter


def _in_order(known: Mapping[str, Parameter]) -> list[Parameter]:
    """Each after those that it depends on, otherwise as given."""
    ordered: dict[str, Parameter] = {}
    while len(ordered) < len(known):
        ready = [
            parameter
            for key, parameter in known.items()
            if key not in ordered and all(name in ordered for name, _ in parameter.when)
        ]
        if not ready:
            key, stuck = next((key, p) for key, p in known.items() if key not in ordered)
            others = ", ".join(name for name, _ in stuck.when if name not in ordered)
            raise ValueError(
                f"hydra.sweeper.params: {key}: its when names {others}, which is no other parameter that is "
                "set before it"
            )
        ordered |= {parameter.key: parameter for parameter in ready}
    return list(ordered.values())


def _unknown(key: str, spec: Any) -> ValueError:
    return ValueError(f"hydra.sweeper.params: {key}: {shown(spec, 80)} is no search space; give {_FORMS}")
