"""`data=mixed`: real objects from shards and procedural ones, in a ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lgm.data.order import MixOrder
from lgm.data.sources.base import Source
from lgm.data.sources.mixture import Mixture
from lgm.data.sources.procedural.source import ProceduralSource
from lgm.data.sources.shards import ShardSource


def real_and_procedural(
    shards: Mapping[str, Any],
    procedural: Mapping[str, Any],
    ratio: Sequence[float] = (1, 1),
    split: str | None = None,
    train_split: str = "train",
) -> Source:
    """In training, a mixture of both; every other split has real objects alone.

    shards, procedural: arguments of ShardSource and ProceduralSource; procedural images are as large as the
    shards', unless `resolution` is given. ratio: real to procedural objects; of 0, there are none of a kind.

    Raises ValueError in one line for a ratio that cannot be, and where the shards' index has no resolution.
    """
    weights = _weights(ratio)
    real = ShardSource(split=split, **shards)
    # Measured on what is real, whatever is trained on.
    if split != train_split or not weights[1]:
        return real
    options = dict(procedural)
    if options.get("resolution") is None:
        options["resolution"] = real.index.render.get("resolution")
        if options["resolution"] is None:
            raise ValueError(
                f"data.path={real.path}: its index.json has no render.resolution; give data.resolution, the "
                "side of its images in pixels"
            )
    made = ProceduralSource("train", **options)
    return Mixture([real, made], weights) if weights[0] else made


def _weights(ratio: Sequence[float]) -> tuple[float, float]:
    fault = ValueError(f"data.ratio={list(ratio)} must be two numbers of at least 0, e.g. [1,1], not both 0")
    if len(ratio) != 2 or any(isinstance(x, bool) or not isinstance(x, int | float) for x in ratio):
        raise fault
    real, procedural = map(float, ratio)
    if not (min(real, procedural) >= 0 and 0 < real + procedural < float("inf")):
        raise fault
    smaller = min(real, procedural) / (real + procedural)
    if 0 < smaller < 1 / MixOrder.BLOCK:
        raise ValueError(
            f"data.ratio={list(ratio)} asks for less than one sample in {MixOrder.BLOCK} of a kind"
        )
    return real, procedural
