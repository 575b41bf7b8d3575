"""Data from elsewhere as data: dicts, lists and scalars, nothing in them an order to Hydra or OmegaConf."""

from __future__ import annotations

import json
import math
import re
import reprlib
import types
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from lgm.errors import shown

_DEEPEST = 64
_MOST_VALUES = 100_000
_LONGEST_TEXT = 20_000
_LARGEST_WHOLE = 2**53
_MOST_ITEMS = 64  # of a list whose type is known
# What Hydra reads as orders.
_ORDERS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
_NET_TARGET = ("model", "net", "_target_")
DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def parsed(text: str, what: str) -> Any:
    """JSON without NaN and infinity; ValueError where it is none."""

    def refuse(name: str) -> None:
        raise ValueError(f"it holds {name}, which is not finite")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else shown(error, 100)
        raise ValueError(f"{what} is no JSON: {reason}") from error


def unlike(key: str, value: Any, expected: str) -> ValueError:
    """The error for a value that is not what its key expects."""
    # Not repr: of what refers to itself many times it has no end.
    return ValueError(f"its record has {shown(key, 100)}={shown(reprlib.repr(value), 80)}, not {expected}")


def plain(value: Any, built: Sequence[str] = (), finite: bool = True) -> Any:
    """A copy in dicts, lists and scalars; ValueError for anything else, and for what Hydra or OmegaConf would
    take for an order.

    built: the sections in which a run has Hydra's names, where they may stand, as names. Of a model it is
        that of its network alone.
    finite: whether NaN and infinity are refused.
    """
    left = iter(range(_MOST_VALUES))

    def copied(value: Any, at: tuple[str, ...]) -> Any:
        # Counted: what refers to itself, or many times to the same, is small in the file and endless to walk.
        if len(at) > _DEEPEST or next(left, None) is None:
            raise ValueError(f"its record is nested too deeply, or holds more than {_MOST_VALUES} values")
        if isinstance(value, dict):
            for name in value:
                _check_key(name, value[name], at, built)
            return {name: copied(inner, (*at, str(name))) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [copied(inner, (*at, str(index))) for index, inner in enumerate(value)]
        if type(value) is str:
            _check_text(value, at)
        elif type(value) is int:
            if abs(value) > _LARGEST_WHOLE:  # Python does not even show one of 5,000 digits
                raise unlike(".".join(at), "…", f"within ±{_LARGEST_WHOLE}")
        elif type(value) is float:
            if finite and not math.isfinite(value):
                raise unlike(".".join(at), value, "finite")
        elif value is not None and type(value) is not bool:
            raise unlike(".".join(at), value, "plain data")
        return value

    return copied(value, ())


def _check_key(name: Any, value: Any, at: tuple[str, ...], built: Sequence[str]) -> None:
    if type(name) not in (str, int):
        raise ValueError(f"its record has a key that is not a string: {shown(repr(name), 50)}")
    at = (*at, str(name))
    _check_text(at[-1], at)
    is_named = at[0] in built and len(at) > 1 and (at[0] != "model" or at == _NET_TARGET)
    if name in _ORDERS and not is_named:
        raise unlike(".".join(at), value, "data: nothing in a record is built")
    if name == "_target_" and (not isinstance(value, str) or not DOTTED_NAME.fullmatch(value)):
        raise unlike(".".join(at), value, "a name")


def _check_text(text: str, at: tuple[str, ...]) -> None:
    if "${" in text:
        raise unlike(".".join(at), text, "data: nothing in a record is resolved")
    if len(text) > _LONGEST_TEXT or any("\ud800" <= character <= "\udfff" for character in text):
        raise unlike(".".join(at), text, f"text of at most {_LONGEST_TEXT} characters")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type of an annotation. One that is no type of plain values, as one's own
    network may have, lets every plain value through."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str | bool | int | None) and value in inner
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is tuple and Ellipsis not in inner:
        return isinstance(value, list) and len(value) == len(inner) and all(map(fits, value, inner))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list) and len(value) <= _MOST_ITEMS and all(fits(v, inner[0]) for v in value)
    if hint is float:
        return type(value) in (int, float)
    if hint in (bool, int, str, dict, list, type(None)):
        return isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    return True


def changes(then: Any, now: Any, key: str) -> Iterator[str]:
    """`key then → now` for each leaf of two nested configurations that differs."""
    if isinstance(then, dict) and isinstance(now, dict):
        target = "_target_"
        if then.get(target) != now.get(target):  # another thing: its options compare with nothing
            then, now = ({target: options.get(target)} for options in (then, now))
        for name in sorted({*then, *now}, key=str):
            yield from changes(then.get(name), now.get(name), f"{key}.{name}")
    elif then != now:
        yield f"{key} {shown(then, 100)} → {shown(now, 100)}"
