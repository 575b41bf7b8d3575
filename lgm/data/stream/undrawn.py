"""Batches whose images are drawn when they reach the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lgm.data.sources.drawing import Sketches
from lgm.data.sources.sketch import Sketch
from lgm.data.stream.collate import Item, collate
from lgm.types import Batch


@dataclass(frozen=True)
class Undrawn:
    """What a loader process makes of objects of which some are sketches; `to` makes it a `Batch`.

    items: without their sketches. drawn: which of them had one.
    """

    items: tuple[Item, ...]
    sketches: Sketches
    drawn: tuple[int, ...]
    with_to_user: bool

    @classmethod
    def of(cls, items: Sequence[Item], with_to_user: bool) -> Undrawn:
        drawn = tuple(k for k, item in enumerate(items) if isinstance(item.rgba, Sketch))
        bare = tuple(replace(item, rgba=None) if k in drawn else item for k, item in enumerate(items))
        return cls(bare, Sketches.of([items[k].rgba for k in drawn]), drawn, with_to_user)

    def pin_memory(self) -> Undrawn:
        return replace(self, sketches=self.sketches.pin_memory())

    def to(self, device: torch.device | str, **options: Any) -> Batch:
        """Drawn there, and collated with decoded images; raises ValueError where sizes differ."""
        device = torch.device(device)
        images = self.sketches.draw(device)  # [M, V, H, W, 4]
        pools: list[Tensor] = [images.flatten(0, 1)]
        first = {k: number * images.shape[1] for number, k in enumerate(self.drawn)}
        end = len(pools[0])
        for k, item in enumerate(self.items):
            if k in first:
                continue
            if item.rgba.shape[1:] != images.shape[2:]:
                raise ValueError(
                    f"object {item.uid!r} has images of {tuple(item.rgba.shape[1:3])} and others of its "
                    f"batch are drawn at {self.sketches.size}; give data.resolution={item.rgba.shape[1]}"
                )
            pools.append(item.rgba.to(device, non_blocking=True))
            first[k] = end
            end += len(item.rgba)
        pool = torch.cat(pools)
        items = [
            replace(item, rgba=pool, rows=[first[k] + row for row in item.rows])
            for k, item in enumerate(self.items)
        ]
        return collate(items, self.with_to_user).to(device, **options)


def collated(items: Sequence[Item], with_to_user: bool = False) -> Batch | Undrawn:
    """As `collate`, but for sketches, which wait for the device."""
    if any(isinstance(item.rgba, Sketch) for item in items):
        return Undrawn.of(items, with_to_user)
    return collate(items, with_to_user)
