"""all_gather of Python lists: one list out of the lists of all ranks."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

Item = TypeVar("Item")


def alone() -> bool:
    """Whether this is the only rank: no process group, so no collective may be called."""
    return not (distributed.is_available() and distributed.is_initialized())


def gather_items(items: list[Item]) -> list[Item]:
    """The items of all ranks, in the ranks' order, on every rank.

    Every rank must call it once, however many items it has: none is fine.
    """
    if alone():
        return list(items)
    per_rank: list[list[Item]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(per_rank, items)
    return [item for rank_items in per_rank for item in rank_items]
