"""More objects than there are meshes: the same ones stretched, in other colours, and two put together.

A network soon knows some hundreds of objects by heart. A variant is an object of its own, with images of
its own, that is there to be trained on: it lies in no split but "train", and only where all that it is made
of lies there too (`data_tools.shared.splits`). Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.shared.naming import is_uid, stable_generator, stable_hash

VARIANT_KEY = "variant"
# Each axis at most so many times longer or shorter, evenly in the logarithm.
_MOST_STRETCH = 1.5
# Of a part: its surfaces take them in turn. Darker more often than brighter: much is white already.
_NUM_TINTS = 8
_TINTS = (0.3, 1.8)


@dataclass(frozen=True)
class Companion:
    """A mesh put beside another, which lies in a sphere of 0.6 about the origin.

    linear: [3, 3], what turns the file's axes to the world's, turns the upright object and stretches it.
    size: radius of its own sphere, of the other's. offset: how far along x and z its middle is from the
    other's. on_top: whether it stands on the other's highest point, not on the same ground.
    tints: as `first_tints`.
    """

    path: Path
    linear: np.ndarray
    size: float
    offset: tuple[float, float]
    on_top: bool
    tints: tuple[tuple[float, float, float], ...] = ()


def variants_of(metadata: dict[str, Any], count: int, uids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The metadata of an object's first `count` variants; `variant` lists the parts, the object first.

    The first is the object stretched, and stays square to the canonical cameras if it was. The second is
    turned too, by any angle, and has another of `uids` beside it. The third and fourth are as these two, in
    other colours; and so on in turn. Drawn from the hash of the variant's name: the same on every machine
    that has the same meshes.
    """
    others = [uid for uid in uids if uid != metadata["uid"]]
    for number in range(1, count + 1):
        uid = _variant_uid(metadata["uid"], number)
        generator = stable_generator(f"variant:{uid}")
        has_companion = number % 2 == 0 and bool(others)
        parts = [_drawn(generator, metadata["uid"], is_turned=has_companion)]
        if has_companion:
            other = _drawn(generator, others[generator.integers(len(others))], is_turned=True)
            # Each draw in this order, for good: another order would make other objects of the same names.
            angle, distance = generator.uniform(0, 2 * math.pi), generator.uniform(0.3, 0.9)
            other["size"] = round(generator.uniform(0.4, 1.0), 4)
            other["on_top"] = bool(generator.random() < 0.3)
            reach = 0.3 if other["on_top"] else 1.0
            other["offset"] = [round(reach * distance * f(angle), 4) for f in (math.cos, math.sin)]
            parts.append(other)
        if number % 4 in (3, 0):
            for part in parts:
                part["tints"] = _drawn_tints(generator)
        yield {"group": metadata["uid"], **metadata, "uid": uid, VARIANT_KEY: {"parts": parts}}


def is_variant(metadata: dict[str, Any]) -> bool:
    """Whether metadata are those of a variant of another object."""
    return VARIANT_KEY in metadata


def part_uids(metadata: dict[str, Any]) -> list[str]:
    """The uids of a variant's parts, the object itself first; empty for an original."""
    return [part["uid"] for part in metadata.get(VARIANT_KEY, {}).get("parts", [])]


def first_linear(metadata: dict[str, Any]) -> np.ndarray:
    """[3, 3], what is done to an object that stands upright; the identity for an original."""
    return _linear(metadata[VARIANT_KEY]["parts"][0]) if is_variant(metadata) else np.eye(3)


def first_tints(metadata: dict[str, Any]) -> tuple[tuple[float, float, float], ...]:
    """Factors of the linear colours of the object's surfaces, in turn; empty where they stay."""
    return _tints(metadata[VARIANT_KEY]["parts"][0]) if is_variant(metadata) else ()


def companions(
    metadata: dict[str, Any], others: Sequence[Path], upright: np.ndarray
) -> tuple[Companion, ...]:
    """The meshes beside the object. others: their meshes; upright: [3, 3], a file's axes to the world's."""
    parts = metadata.get(VARIANT_KEY, {}).get("parts", [])[1:]
    return tuple(
        Companion(
            path,
            _linear(part) @ upright,
            part["size"],
            tuple(part["offset"]),
            part["on_top"],
            _tints(part),
        )
        for part, path in zip(parts, others, strict=True)
    )


def _variant_uid(uid: str, number: int) -> str:
    ending = f"-variant{number}"
    whole = uid + ending
    # 80 characters at most: cut, with a hash of what was cut off.
    return whole if is_uid(whole) else f"{uid[: 80 - len(ending) - 9]}-{stable_hash(uid)[:8]}{ending}"


def _drawn(generator: np.random.Generator, uid: str, is_turned: bool) -> dict[str, Any]:
    turn_deg = generator.uniform(-180, 180) if is_turned else 0.0
    stretch = np.exp(generator.uniform(-1, 1, size=3) * math.log(_MOST_STRETCH))
    return {
        "uid": uid,
        "turn_deg": round(float(turn_deg), 2),
        "stretch": [round(float(factor), 4) for factor in stretch],
    }


def _drawn_tints(generator: np.random.Generator) -> list[list[float]]:
    drawn = np.exp(generator.uniform(*np.log(_TINTS), size=(_NUM_TINTS, 3)))
    return [[round(float(factor), 4) for factor in tint] for tint in drawn]


def _tints(part: dict[str, Any]) -> tuple[tuple[float, float, float], ...]:
    return tuple((red, green, blue) for red, green, blue in part.get("tints", []))


def _linear(part: dict[str, Any]) -> np.ndarray:
    """Turned about the vertical, then stretched along x, y and z."""
    sine, cosine = math.sin(math.radians(part["turn_deg"])), math.cos(math.radians(part["turn_deg"]))
    return np.diag(part["stretch"]) @ np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
