"""A weighted mixture of data sets."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from lgm.data.order import ORDER_VERSION, MixOrder, Part, Slot
from lgm.data.sources.base import PosedObject, Source, hash_of
from lgm.data.sources.filters import Filters
from lgm.data.sources.shards import ShardSource


class Mixture(Source):
    """Training draws from each set by its weight, whatever its size; a set's own order stays what it
    is alone. Evaluation takes objects from each set in turn, so that the first few are of all of them.

    sources: the sets; weights: positive, of any sum.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        self.sources = list(sources)
        self.shares = [weight / sum(weights) for weight in weights]
        self._sizes = [size for source in sources for size in source.shard_sizes]
        counts = [len(source.shard_sizes) for source in sources]
        self._offsets = [0, *accumulate(counts)]

    @property
    def shard_sizes(self) -> list[int]:
        return self._sizes

    @property
    def content_hash(self) -> str:
        return hash_of(self.shares, *(source.content_hash for source in self.sources))

    def num_distinct(self, num_samples: int) -> int:
        counts = (round(share * num_samples) for share in self.shares)
        return sum(source.num_distinct(n) for source, n in zip(self.sources, counts, strict=True))

    def load(self, shard: int, ordinal: int) -> PosedObject:
        index = self._set_of(shard)
        return self.sources[index].load(shard - self._offsets[index], ordinal)

    def prefetch(self, shard: int) -> None:
        index = self._set_of(shard)
        self.sources[index].prefetch(shard - self._offsets[index])

    def slots(
        self, num_consumers: int, consumer: int, seed: int, start: int = 0, version: int = ORDER_VERSION
    ) -> Iterator[Slot]:
        """Each position's set by weight, and of that set the next slot of its own stream."""
        mix = MixOrder(self.shares, seed, consumer)
        # Each stream starts where its own share of the positions before `start` ends: a resume costs no
        # reading.
        streams = [
            self._slots_of(index, num_consumers, consumer, seed, int(done), version)
            for index, done in enumerate(mix.before(start))
        ]
        for position, index in enumerate(mix.sets(start), start):
            yield replace(next(streams[index]), position=position)

    def locate(self, number: int) -> tuple[int, int]:
        """Sets in turn: the first objects of an evaluation come from all sets."""
        index, rank = (int(x) for x in self._in_turn[number])
        shard, ordinal = self.sources[index].locate(rank)
        return shard + self._offsets[index], ordinal

    def on_device(self, device: torch.device) -> Source:
        return Mixture([source.on_device(device) for source in self.sources], self.shares)

    def first_objects(self, count: int) -> Source:
        """Refused: the first objects of a mixture would be those of its first set."""
        raise ValueError(f"data.max_train_objects={count} is for one data set; leave it null with data.sets")

    def check_files(self, num_readers: int) -> None:
        for source in self.sources:
            source.check_files(num_readers * len(self.sources))  # a reader has a shard of each in hand

    def note_downloads(self, num_consumers: int, num_machines: int, seed: int) -> None:
        for source in self.sources:
            if source.num_objects >= num_consumers:  # of a smaller one each consumer reads all
                source.note_downloads(num_consumers, num_machines, seed)

    def _set_of(self, shard: int) -> int:
        return int(np.searchsorted(self._offsets, shard, side="right")) - 1

    def _slots_of(
        self, index: int, num_consumers: int, consumer: int, seed: int, start: int, version: int
    ) -> Iterator[Slot]:
        source, offset = self.sources[index], self._offsets[index]
        # A small set beside a large one, e.g. a person's own hundred objects.
        is_shared = source.num_objects < num_consumers
        # Too few to deal out: each consumer reads all of it, in passes that no other one has.
        stream = (
            source.slots(1, 0, seed, start, version)
            if is_shared
            else source.slots(num_consumers, consumer, seed, start, version)
        )
        for slot in stream:
            yield replace(
                slot,
                pass_index=slot.pass_index * num_consumers + consumer if is_shared else slot.pass_index,
                part=_shifted(slot.part, offset),
                next_part=_shifted(slot.next_part, offset),
            )

    @cached_property
    def _in_turn(self) -> np.ndarray:
        """Set and rank in it of each object, the sets in turn until each is exhausted: [N, 2]."""
        sets = np.concatenate([np.full(s.num_objects, i, np.int32) for i, s in enumerate(self.sources)])
        ranks = np.concatenate([np.arange(s.num_objects, dtype=np.int32) for s in self.sources])
        # lexsort's last key comes first: by rank, then by set.
        return np.stack([sets, ranks], axis=1)[np.lexsort((sets, ranks))]


def _shifted(part: Part, offset: int) -> Part:
    """The same part of a shard that lies so many places further on."""
    return replace(part, shard=part.shard + offset)  # type: ignore[type-var]  # all rules' parts are dataclasses


def mixture_of_shards(
    sets: Sequence[Mapping[str, Any]],
    split: str | None = None,
    filters: Filters | None = None,
    **options: Any,
) -> Mixture:
    """A mixture of `ShardSource`s.

    sets: each `{"path": …, "weight": …}`; `filters` of a set's own take the place of the common ones.
    options: of all sets, for ShardSource.
    """
    if not sets:
        raise ValueError(
            "data.sets is empty: give data.sets=[{path:/data/a,weight:3},{path:/data/b,weight:1}]"
        )
    known = {"weight", *inspect.signature(ShardSource).parameters} - {"split"}
    weights, sources = [], []
    for number, entry in enumerate(sets):
        unknown = sorted(set(entry) - known)
        if unknown or "path" not in entry:
            fault = f"has an unknown {unknown[0]!r}" if unknown else "has no path"
            raise ValueError(f"data.sets[{number}] {fault}; a set has path and weight, and may have filters")
        weight = entry.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise ValueError(f"data.sets[{number}].weight={weight!r} must be a number above 0")
        weights.append(float(weight))
    for number, weight in enumerate(weights):
        # Within a block it would round to no sample at all.
        if weight / sum(weights) < 1 / MixOrder.BLOCK:
            raise ValueError(
                f"data.sets[{number}].weight={weight:g} is less than one sample in {MixOrder.BLOCK}; "
                "raise it, or leave the set out"
            )
    for entry in sets:
        set_options = {key: value for key, value in entry.items() if key not in ("weight", "filters")}
        labels = None if filters is None or filters.labels is None else filters.labels.path
        chosen = Filters(entry["filters"], labels) if entry.get("filters") else filters
        sources.append(ShardSource(split=split, filters=chosen, **{**options, **set_options}))
    return Mixture(sources, weights)
