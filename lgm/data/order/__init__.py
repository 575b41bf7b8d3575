"""Which object comes when: a pure function of (seed, rank, worker, position).

Nothing here remembers anything, so a training that resumes at step k computes where it stood instead of
replaying k steps, and no random state need be stored.

*Consumers* are the loader workers of all ranks together. In each pass over the data the shards are shuffled
and dealt to the consumers, by one of the rules of `RULES`; a consumer reads what it was dealt shard by shard,
each shuffled in itself. Consumers go on to their next pass on their own: a stream never ends, so ranks never
wait for each other. Which rule a run follows is part of its state, so that an older checkpoint goes on by
the older one.
"""

from __future__ import annotations

from collections.abc import Iterator

from lgm.data.order import cards, ranges
from lgm.data.order.mix import MixOrder
from lgm.data.order.ranges import num_downloads
from lgm.data.order.slots import Part, Slot, candidates, object_rng, view_rng

RULES = {1: cards.slots, 2: ranges.slots}
ORDER_VERSION = 2  # of runs that begin now

__all__ = [
    "ORDER_VERSION",
    "RULES",
    "MixOrder",
    "Part",
    "Slot",
    "candidates",
    "num_downloads",
    "object_rng",
    "slots",
    "view_rng",
]


def slots(
    shard_sizes: list[int],
    num_consumers: int,
    consumer: int,
    seed: int,
    start: int = 0,
    repeats: int = 1,
    version: int = ORDER_VERSION,
) -> Iterator[Slot]:
    """A consumer's endless stream from position `start` on.

    repeats: how often a part is read, in another order each time, before the consumer goes on to its next.
    version: the rule, a key of RULES.

    Raises ValueError at the first step where there are fewer objects than consumers.
    """
    if sum(shard_sizes) < num_consumers:
        raise ValueError(
            f"{sum(shard_sizes)} objects are too few for {num_consumers} loader processes "
            f"(ranks × data.num_workers); lower data.num_workers"
        )
    yield from RULES[version](shard_sizes, num_consumers, consumer, seed, start, repeats)
