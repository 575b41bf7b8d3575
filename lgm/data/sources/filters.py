"""Filters of objects by their metadata: licence, category, source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

_UNKNOWN = "unknown"  # what an object is that does not say
_SHOWN = 8
_MOST_VALUES = 10_000  # of a field that are counted by name: a filter by author may meet a million


class Filters:
    """Lists of patterns for fields of `<uid>.json`: licence, category, source, or any other.

    rules: by field, `{"allow": [...], "deny": [...]}`, each None for no such list. An object takes
        part where every field matches a pattern of its allow list and none of its deny list.
        Patterns are the shell's (`CC-BY*`), whatever the case. A field that an object lacks is
        `unknown`.
    """

    def __init__(self, rules: Mapping[str, Mapping[str, Sequence[str] | None] | None] | None = None) -> None:
        self.rules: dict[str, dict[str, list[str]]] = {}
        for field, lists in (rules or {}).items():
            for kind, patterns in (lists or {}).items():
                if kind not in ("allow", "deny"):
                    raise ValueError(f"data.filters.{field}.{kind}: a filter has allow and deny, no {kind!r}")
                if patterns is None:
                    continue
                if isinstance(patterns, str) or not patterns:
                    raise ValueError(
                        f"data.filters.{field}.{kind}={patterns!r} must be a list, e.g. [CC0-1.0], or null"
                    )
                self.rules.setdefault(field, {})[kind] = [str(p).lower() for p in patterns]

    def __bool__(self) -> bool:
        """Whether anything could be left out."""
        return bool(self.rules)


class Census:
    """Applies filters to the objects of a set, and counts."""

    def __init__(self, filters: Filters) -> None:
        self._rules = filters.rules
        self._left_out: Counter[str] = Counter()
        self._values: dict[str, Counter[str]] = {field: Counter() for field in self._rules}

    def admits(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an object takes part."""
        refused = None
        for field, lists in self._rules.items():
            # An empty field says as little as a missing one.
            value = str(metadata.get(field) or _UNKNOWN)
            values = self._values[field]
            if value in values or len(values) < _MOST_VALUES:
                values[value] += 1
            allowed = "allow" not in lists or _matches(value, lists["allow"])
            if refused is None and (not allowed or _matches(value, lists.get("deny", ()))):
                refused = field
        if refused is not None:
            self._left_out[refused] += 1
        return refused is None

    def summary(self) -> str:
        """How many each field left out, where it was the first to do so."""
        return ", ".join(f"{field} left out {self._left_out[field]}" for field in self._rules)

    def explain(self) -> str:
        """The rules, and the values that there are."""
        return "; ".join(
            f"data.filters.{field}: {', '.join(f'{kind} {patterns}' for kind, patterns in lists.items())}, "
            f"and there are {_listed(self._values[field])}"
            for field, lists in self._rules.items()
        )


def _matches(value: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(value.lower(), pattern) for pattern in patterns)


def _listed(values: Counter[str]) -> str:
    shown = [f"{value!r} ({count})" for value, count in values.most_common(_SHOWN)]
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(shown) + more
