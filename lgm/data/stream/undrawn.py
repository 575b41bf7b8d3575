"""Batches whose images are drawn when they reach the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from lgm.data.sources.drawing import Sketches
from lgm.data.sources.sketch import Sketch
from lgm.data.stream.collate import Item, collate
from lgm.types import Batch


@dataclass(frozen=True)
class Undrawn:
    """What a loader process makes of objects of which some are sketches; `to` makes it a `Batch`.

    items: without images; their rows are those of all sketches' views and of the decoded images behind them.
    decoded: of the other objects. In one tensor: each one that passes between processes is an open file.
    """

    items: tuple[Item, ...]
    sketches: Sketches
    decoded: UInt8[Tensor, "P H W 4"]
    with_to_user: bool

    @classmethod
    def of(cls, items: Sequence[Item], with_to_user: bool) -> Undrawn:
        """Raises ValueError in one line where images would differ in size."""
        sketches = Sketches.of([item.rgba for item in items if isinstance(item.rgba, Sketch)])
        size, num_views = sketches.size, sketches.cameras.shape[1]
        bare, decoded, drawn_end, end = [], [], 0, sketches.cameras.shape.numel()
        for item in items:
            if isinstance(item.rgba, Sketch):
                first, drawn_end = drawn_end, drawn_end + num_views
            elif tuple(item.rgba.shape[1:3]) != (size, size):
                raise ValueError(
                    f"object {item.uid!r} has images of {tuple(item.rgba.shape[1:3])} and others of its "
                    f"batch are drawn at {size}; give data.resolution={item.rgba.shape[1]}"
                )
            else:
                decoded.append(item.rgba[item.rows])
                item = replace(item, rows=list(range(len(item.rows))))
                first, end = end, end + len(item.rows)
            bare.append(replace(item, rgba=None, rows=[first + row for row in item.rows]))
        # Empty where all objects are sketches, so that every batch has the same fields.
        none = torch.empty(0, size, size, 4, dtype=torch.uint8)
        return cls(tuple(bare), sketches, torch.cat(decoded) if decoded else none, with_to_user)

    def pin_memory(self) -> Undrawn:
        """In page-locked host memory, as the loader asks for."""
        return replace(self, sketches=self.sketches.pin_memory(), decoded=self.decoded.pin_memory())

    def to(self, device: torch.device | str, **options: Any) -> Batch:
        """A `Batch` on that device: sketches are rendered there, and collated with the decoded images."""
        device = torch.device(device)
        drawn = self.sketches.draw(device).flatten(0, 1)
        images = torch.cat([drawn, self.decoded.to(device, non_blocking=True)])
        return collate([replace(item, rgba=images) for item in self.items], self.with_to_user).to(
            device, **options
        )


def collated(items: Sequence[Item], with_to_user: bool = False) -> Batch | Undrawn:
    """`collate`, or an `Undrawn` batch where some objects are sketches that the device renders."""
    if any(isinstance(item.rgba, Sketch) for item in items):
        return Undrawn.of(items, with_to_user)
    return collate(items, with_to_user)
