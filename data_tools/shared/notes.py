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
# Of what a file has and is not drawn: details that a diffuse render hardly shows, other poses.
_MINOR = ("normal map", "animation", "anisotropy")


def kind_of(note: str) -> str:
    """A few words without the object's own names and numbers."""
    for pattern, kind in _KINDS:
        if re.search(pattern, note):
            return kind
    words = re.sub(r"'[^']*'|\"[^\"]*\"|[0-9][0-9.,]*", "", note.partition(";")[0].partition(":")[0])
    return " ".join(words.split()[:6]).rstrip(",")


def features_of(note: str) -> list[str]:
    """Features in a note like `drawn without: animation (2), normal map (1)`; of other notes nothing."""
    _, is_listed, features = note.partition("drawn without: ")
    return [name.strip() for name in re.findall(r"([^,():]+?) \(\d+\)", features)] if is_listed else []


class NoteCounts:
    """Counts of objects by the kinds of their notes; each kind counts once an object.

    What many files have and no diffuse render shows, normal maps and animations, is counted apart from what
    is lost on screen.
    """

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._minor: Counter[str] = Counter()
        self._num_objects = 0

    def add(self, notes: Iterable[str]) -> None:
        """One object's."""
        kinds: dict[str, None] = {}
        for note in notes:
            features = features_of(note)
            self._minor.update(feature for feature in features if feature in _MINOR)
            lost = [f"without {feature}" for feature in features if feature not in _MINOR]
            kinds.update(dict.fromkeys(lost if features else [kind_of(note)]))
        self._num_objects += bool(kinds)
        self._kinds.update(list(kinds))

    def summary(self) -> str:
        """`7 with notes (missing texture 6, NaN vertices 1); drawn without normal map 40`; or nothing."""
        lines = []
        if self._num_objects:
            named = ", ".join(f"{kind} {count}" for kind, count in self._kinds.most_common(6))
            more = ", …" if len(self._kinds) > 6 else ""
            lines.append(f"{self._num_objects} with notes ({named}{more})")
        if self._minor:
            lines.append("drawn without " + ", ".join(f"{name} {n}" for name, n in self._minor.most_common()))
        return "; ".join(lines)
