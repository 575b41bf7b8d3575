"""Which objects belong to which split: by a hash, or by a list that someone made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_tools.naming import is_uid, stable_hash, unit_hash

DEFAULT_SPLIT = "train"


def parse_fractions(text: str) -> dict[str, float]:
    """`train=0.9,val=0.1` -> {"train": 0.9, "val": 0.1}; the fractions must add up to 1."""
    fractions = {}
    for item in text.split(","):
        name, _, number = item.partition("=")
        try:
            fractions[name.strip()] = float(number)
        except ValueError as error:
            raise ValueError(f"--splits {text!r}: {item!r} must be name=fraction") from error
    if not all(is_uid(name) for name in fractions) or any(f <= 0 for f in fractions.values()):
        raise ValueError(f"--splits {text!r} needs plain names and positive fractions")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"--splits {text!r} adds up to {sum(fractions.values()):g}, not 1")
    return fractions


def read_assignment(path: Path) -> dict[str, str]:
    """uid -> split, from lines `<uid> <split>`; # starts a comment."""
    if not path.is_file():
        raise FileNotFoundError(f"--assign {path} does not exist")
    assignment: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not is_uid(words[1]) or words[0] in assignment:
            raise ValueError(f"{path} line {number}: {line.strip()!r} must be `<uid> <split>`, each uid once")
        assignment[words[0]] = words[1]
    return assignment


def split_by_fraction(key: str, fractions: dict[str, float]) -> str:
    """By the key's hash alone, so that an object keeps its split when others come or go."""
    place, end = unit_hash(f"split:{key}"), 0.0
    for name, fraction in fractions.items():
        end += fraction
        if place < end:
            return name
    return name


def arrange(
    uids: Iterable[str],
    read_metadata: Callable[[str], dict[str, Any]],
    fractions: dict[str, float] | None,
    assignment: dict[str, str] | None,
) -> dict[str, list[str]]:
    """Split -> its uids in the order of their hashes, which mixes categories across shards.

    Objects that share `group` in their metadata (the same mesh in other colours) stay together.
    """
    chosen: dict[str, list[str]] = {}
    for uid in uids:
        if assignment is not None:
            split = assignment.get(uid)
        elif fractions is not None:
            split = split_by_fraction(str(read_metadata(uid).get("group", uid)), fractions)
        else:
            split = DEFAULT_SPLIT
        if split is not None:
            chosen.setdefault(split, []).append(uid)
    wanted = fractions or dict.fromkeys((assignment or {}).values())
    for split in wanted:
        if split not in chosen:
            raise ValueError(
                f"split {split!r} gets no object; ask for a larger fraction, or name some by --assign <file>"
            )
    missing = sorted(set(assignment or {}) - {uid for uids in chosen.values() for uid in uids})
    if missing:
        raise ValueError(f"--assign names {missing[0]!r} ({len(missing)} in all), which is not rendered")
    return {split: sorted(chosen[split], key=stable_hash) for split in sorted(chosen)}
