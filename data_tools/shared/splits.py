"""Assignment of objects to splits: by a hash of the uid, or by a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_tools.shared.naming import is_uid, stable_hash, unit_hash
from data_tools.shared.variants import part_uids
from lgm.files import read_text

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
    # Not exactly 1: 0.7 + 0.2 + 0.1 is not, in binary.
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"--splits {text!r} adds up to {sum(fractions.values()):g}, not 1")
    return fractions


def read_assignment(path: Path) -> dict[str, str]:
    """uid -> split, from lines `<uid> <split>`; # starts a comment."""
    if not path.is_file():
        raise FileNotFoundError(f"--assign {path} does not exist")
    assignment: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not is_uid(words[1]) or words[0] in assignment:
            raise ValueError(f"{path} line {number}: {line.strip()!r} must be `<uid> <split>`, each uid once")
        assignment[words[0]] = words[1]
    return assignment


def split_by_fraction(key: str, fractions: dict[str, float]) -> str:
    """By the key's hash alone, so that an object keeps its split when others come or go."""
    fraction_of_key, end = unit_hash(f"split:{key}"), 0.0
    for name, fraction in fractions.items():
        end += fraction
        if fraction_of_key < end:
            return name
    return name


def arrange(
    uids: Iterable[str],
    read_metadata: Callable[[str], dict[str, Any]],
    fractions: dict[str, float] | None,
    assignment: dict[str, str] | None,
) -> dict[str, list[str]]:
    """Split -> its uids in the order of their hashes, which mixes categories across shards.

    Of both, the assignment decides for the objects that it names, and the hash for the rest; the assignment
    alone leaves the rest out. By the hash, objects that share `group` in their metadata (the same mesh in
    other colours) stay together, and with one that is named. A variant is kept in "train" alone, where all
    that it is made of lies there too.
    """
    uids, chosen = list(uids), {}
    if missing := sorted(set(assignment or {}) - set(uids)):
        raise ValueError(f"--assign names {missing[0]!r} ({len(missing)} in all), which is not rendered")
    named = {uid: split for uid in uids if (split := (assignment or {}).get(uid))}
    if fractions is not None:
        records = {uid: read_metadata(uid) for uid in uids}
        keys = {uid: str(metadata.get("group", uid)) for uid, metadata in records.items()}
        parts = {uid: part_uids(metadata) for uid, metadata in records.items()}
        decided = _decided(named, keys)
        splits = {uid: decided.get(key) or split_by_fraction(key, fractions) for uid, key in keys.items()}
        splits = {uid: split for uid, split in splits.items() if _may_lie(parts[uid], split, splits)}
    else:
        splits = named if assignment is not None else dict.fromkeys(uids, DEFAULT_SPLIT)
    for uid, split in splits.items():
        chosen.setdefault(split, []).append(uid)
    expected = {**(fractions or {}), **dict.fromkeys((assignment or {}).values())}
    for split in expected:
        if split not in chosen:
            # Splits follow each other along the hash: the last object is the next that a later one would get.
            last = max(uids, key=lambda uid: unit_hash(f"split:{uid}"), default="<uid>")
            raise ValueError(
                f"split {split!r} gets no object; ask for a larger fraction, or name some by --assign <file>"
                f": a file with the line `{last} {split}`, for example"
            )
    # Sorted by name, too: the same shards whatever the order on the disk.
    return {split: sorted(chosen[split], key=stable_hash) for split in sorted(chosen)}


def _may_lie(parts: list[str], split: str, splits: dict[str, str]) -> bool:
    """Whether an object made of those others is of any use in a split; a part that was not rendered may
    belong to any."""
    return not parts or (split == DEFAULT_SPLIT and all(splits.get(uid) == DEFAULT_SPLIT for uid in parts))


def _decided(named: dict[str, str], keys: dict[str, str]) -> dict[str, str]:
    """Group -> split, for the groups of objects that have been given one."""
    decided: dict[str, str] = {}
    for uid, split in named.items():
        if decided.setdefault(keys[uid], split) != split:
            raise ValueError(
                f"--assign puts {uid!r} into {split!r} and others of its group {keys[uid]!r} into "
                f"{decided[keys[uid]]!r}; the same mesh in other colours belongs into one split"
            )
    return decided
