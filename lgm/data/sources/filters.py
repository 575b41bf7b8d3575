"""Filters of objects by their metadata: licence, category, source, and labels of a table beside the set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lgm.data.sources.labels import Labels

_UNKNOWN = "unknown"  # what an object is that does not say
_SHOWN = 8
_MOST_VALUES = 10_000  # of a field that are counted by name: a filter by author may meet a million


class Filters:
    """Lists of patterns for fields of `<uid>.json`: licence, category, source, or any other.

    rules: by field, `{"allow": [...], "deny": [...]}`, each None for no such list. An object takes
        part where every field matches a pattern of its allow list and none of its deny list.
        Patterns are the shell's (`CC-BY*`), whatever the case. A field that an object lacks is
        `unknown`.
    labels: a table of further fields, joined by uid (`Labels`). An object without a row is `unknown` in its
        columns: an allow list leaves it out, a deny list keeps it.
    """

    def __init__(
        self,
        rules: Mapping[str, Mapping[str, Sequence[str] | None] | None] | None = None,
        labels: str | Path | None = None,
    ) -> None:
        self.rules: dict[str, dict[str, list[str]]] = {}
        self.labels = None if labels is None else Labels(labels)
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

    def check_labels(self) -> None:
        """Raise ValueError for labels that no rule asks for: they choose nothing."""
        if self.labels is not None and not set(self.rules) & set(self.labels.columns):
            raise ValueError(
                f"labels {self.labels.path} have no effect: no filter names one of its columns "
                f"{', '.join(self.labels.columns)}, e.g. +data.filters.{self.labels.columns[0]}.allow=[…]"
            )

    def joined(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """The object's metadata, with its labels where there is a table of them."""
        return metadata if self.labels is None else self.labels.join(metadata)

    def refused(self, joined: Mapping[str, Any]) -> str | None:
        """The first field by which an object is left out, or None. joined: of `joined`."""
        return next((field for field in self.rules if not self._admits(field, joined)), None)

    def _admits(self, field: str, joined: Mapping[str, Any]) -> bool:
        lists, value = self.rules[field], value_of(joined, field)
        allowed = "allow" not in lists or _matches(value, lists["allow"])
        return allowed and not _matches(value, lists.get("deny", ()))

    def __bool__(self) -> bool:
        """Whether anything could be left out."""
        return bool(self.rules)


class Census:
    """Applies filters to the objects of a set, and counts."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters
        self._rules = filters.rules
        self._left_out: Counter[str] = Counter()
        self._values: dict[str, Counter[str]] = {field: Counter() for field in self._rules}
        self._seen = 0
        self._labelled = 0

    def admits(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an object takes part."""
        self._seen += 1
        joined = self._filters.joined(metadata)
        if self._filters.labels is not None:
            self._labelled += bool(self._filters.labels.of(str(metadata.get("uid"))))
        for field, values in self._values.items():
            value = value_of(joined, field)
            if value in values or len(values) < _MOST_VALUES:
                values[value] += 1
        refused = self._filters.refused(joined)
        if refused is not None:
            self._left_out[refused] += 1
        return refused is None

    def summary(self) -> str:
        """How many each field left out, where it was the first to do so, and how many have labels."""
        return ", ".join(
            [*(f"{field} left out {self._left_out[field]}" for field in self._rules), *self._policy()]
        )

    def _policy(self) -> list[str]:
        if self._filters.labels is None:
            return []
        return [
            f"{self._labelled} of {self._seen} have a row in {self._filters.labels.path} (without one, an "
            "allow list leaves an object out and a deny list keeps it)"
        ]

    def explain(self) -> str:
        """The rules, and the values that there are."""
        rules = []
        for field, lists in self._rules.items():
            said = ", ".join(f"{kind} {patterns}" for kind, patterns in lists.items())
            rules.append(f"data.filters.{field}: {said}, and there are {_listed(self._values[field])}")
        return "; ".join([*rules, *self._policy()])


def value_of(joined: Mapping[str, Any], field: str) -> str:
    """A field as filters compare it: text; booleans as `true` and `false`; `unknown` where an object lacks
    it."""
    value = joined.get(field)
    if isinstance(value, bool):
        return str(value).lower()
    # An empty field says as little as a missing one; a number 0 says something.
    is_number = isinstance(value, (int, float))
    return str(value) if value or is_number else _UNKNOWN


def _matches(value: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(value.lower(), pattern) for pattern in patterns)


def _listed(values: Counter[str]) -> str:
    shown = [f"{value!r} ({count})" for value, count in values.most_common(_SHOWN)]
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(shown) + more
