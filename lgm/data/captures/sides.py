"""Which side of the object an image shows, by its name: front, right, back, left."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Azimuth 0 looks from +z, azimuth 90 from +x: "right" is where a camera at +x stands.
AZIMUTHS_DEG = {"front": 0.0, "right": 90.0, "back": 180.0, "left": 270.0}
_SYNONYMS = {"rear": "back"}
# Words that people join to a side without a separator: `frontview`, `camRight`, `leftside`.
_COMPANIONS = r"(?:view|side|camera|cam|image|img|photo|pic|shot|render|face|facing)"
_SIDE = re.compile(rf"{_COMPANIONS}?({'|'.join([*AZIMUTHS_DEG, *_SYNONYMS])}){_COMPANIONS}?")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # also of camelCase: `CameraRight`, `LEFT`


def named_azimuths_deg(stems: Sequence[str]) -> list[float] | None:
    """The azimuth that each file name (without its suffix) states; None where no name states one.

    A side counts as a word of its own, in any case: `Camera_right`, `chairBack`, `02-left-final`. Two
    neighbouring sides are the diagonal between them (`front_right`: 45). Words that all names share at the
    same position, as `left_shoe_` of `left_shoe_front`, state nothing.

    Raises ValueError in one line where some names state a side and others none, where two state the same,
    or where one states opposite sides.
    """
    words = [_WORDS.findall(stem) for stem in stems]
    if len(words) > 1:
        words = [_without_shared(name_words, words) for name_words in words]
    stated = [_azimuth_deg(stem, name_words) for stem, name_words in zip(stems, words, strict=True)]
    if all(azimuth is None for azimuth in stated):
        return None
    for stem, azimuth in zip(stems, stated, strict=True):
        if azimuth is None:
            other = next(s for s, a in zip(stems, stated, strict=True) if a is not None)
            raise ValueError(
                f"{other} names a side and {stem} names none; name all by their sides (front, right, back, "
                "left) or none"
            )
        if stated.count(azimuth) > 1:
            twins = [s for s, a in zip(stems, stated, strict=True) if a == azimuth]
            raise ValueError(
                f"{' and '.join(twins)} name the same side; name each image by a side of its own "
                "(front, right, back, left)"
            )
    return [azimuth for azimuth in stated if azimuth is not None]


def _without_shared(name_words: list[str], all_words: list[list[str]]) -> list[str]:
    """The words of one name that not all names have at the same position, counted from either end."""
    shortest = min(map(len, all_words))
    first = 0
    while first < shortest and len({words[first].lower() for words in all_words}) == 1:
        first += 1
    last = 0
    while last < shortest - first and len({words[-1 - last].lower() for words in all_words}) == 1:
        last += 1
    return name_words[first : len(name_words) - last]


def _azimuth_deg(stem: str, words: list[str]) -> float | None:
    matches = [match for word in words if (match := _SIDE.fullmatch(word.lower()))]
    sides = {_SYNONYMS.get(match[1], match[1]) for match in matches}
    if not sides:
        return None
    azimuths = sorted(AZIMUTHS_DEG[side] for side in sides)
    if len(azimuths) == 1:
        return azimuths[0]
    if len(azimuths) == 2 and azimuths[1] - azimuths[0] in (90.0, 270.0):
        return sum(azimuths) / 2 if azimuths[1] - azimuths[0] == 90.0 else 315.0
    raise ValueError(f"{stem} names several sides: {', '.join(sorted(sides))}; name one")
