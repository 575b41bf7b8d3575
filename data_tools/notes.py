"""Notes of objects, counted by kind for the screen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_KINDS = (
    (r"^texture .* not found; its", "missing texture"),
    (r"^texture .* not found;", "texture by another name"),
    (r"^texture .* (unreadable|cannot be read)", "unreadable texture"),
    (r"^material file .* not found", "missing material file"),
    (r"^material file .* is used", "material file by the mesh's name"),
    (r"^material .* not found", "missing material"),
    (r"names no texture", "no texture named"),
    (r"^NaN or infinite vertices", "NaN vertices"),
    (r"^uid .* is taken", "uid taken"),
    (r"^its files have changed", "changed since"),
    (r" has Tr 1,", "Tr 1 drawn opaque"),
    (r"^its lines hold more", "lines longer than the header says"),
    (r"texture and colours", "texture and colours"),
    (r"alpha 0", "alpha 0 everywhere"),
)


def kind_of(note: str) -> str:
    """A few words without the object's own names and numbers."""
    for pattern, kind in _KINDS:
        if re.search(pattern, note):
            return kind
    words = re.sub(r"'[^']*'|\"[^\"]*\"|[0-9][0-9.,]*", "", note.partition(";")[0].partition(":")[0])
    return " ".join(words.split()[:6]).rstrip(",")


def summary(kinds: Counter[str], num_objects: int) -> str:
    """`7 with notes (missing texture 6, NaN vertices 1)`; empty without any."""
    if not num_objects:
        return ""
    named = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(6))
    return f"{num_objects} with notes ({named}{', …' if len(kinds) > 6 else ''})"


def count(kinds: Counter[str], notes: Iterable[str]) -> None:
    """One object's notes: each kind counts once."""
    kinds.update(list(dict.fromkeys(map(kind_of, notes))))
