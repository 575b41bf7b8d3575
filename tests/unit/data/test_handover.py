"""Another number of readers goes on where the others stood: no object of a pass twice, none left out."""

import random
from collections import Counter
from itertools import islice

import pytest

from lgm.data.order import ORDER_VERSION, RULES, candidates
from lgm.data.sources.base import Source
from lgm.data.stream.handover import Leftovers, Leg, leftovers, legs_of


class Numbers(Source):
    """Objects that are nothing but their numbers."""

    def __init__(self, sizes):
        self._sizes = sizes

    @property
    def shard_sizes(self):
        return self._sizes

    def load(self, shard, ordinal):
        raise AssertionError("nothing is read")


def read(source, left, leg, seed=3):
    """The objects that all consumers of a leg read."""
    seen = []
    for consumer in range(leg.num_consumers):
        stream = left.slots(source, leg.num_consumers, consumer, seed, 0, leg.order_version)
        for slot in islice(stream, leg.num_read(consumer)):
            shard, ordinal = next(candidates(slot, source.shard_sizes, seed))
            seen.append(source.first(shard) + ordinal)
    return seen


def of(world_size, num_workers, batch_size, batches, version=ORDER_VERSION):
    return Leg(world_size, num_workers, batch_size, version, batches)


@pytest.mark.parametrize("version", RULES)
@pytest.mark.parametrize(
    "legs",
    [
        [of(1, 0, 2, 5), of(2, 0, 1, 5), of(1, 0, 2, 2)],  # 10 + 10 + 4
        [of(2, 0, 1, 6), of(3, 0, 1, 4)],  # 12 + 12
        [of(1, 2, 1, 6), of(1, 0, 1, 10), of(2, 2, 1, 4)],  # 6 + 10 + 8
        [of(2, 0, 2, 2), of(1, 2, 2, 8)],  # 8 + 16
    ],
)
def test_a_pass_of_several_legs_has_each_object_once(version, legs):
    source = Numbers([7, 1, 9, 4, 3])
    legs = [of(leg.world_size, leg.num_workers, leg.batch_size, leg.batches, version) for leg in legs]
    seen = []
    for number, leg in enumerate(legs):
        seen += read(source, leftovers(source, legs[:number], 3), leg)
    counts = Counter(seen)
    assert sum(counts.values()) == 24 and set(counts) == set(range(24)) and set(counts.values()) == {1}


def test_any_changes_at_any_time():
    """The passes that were begun, read to their end, have each object as often as any other."""
    rng = random.Random(0)
    for _ in range(6):
        source = Numbers([rng.randint(1, 9) for _ in range(rng.randint(2, 6))])
        legs, seen = [], Counter({number: 0 for number in range(source.num_objects)})
        for _ in range(3):
            leg = of(rng.randint(1, 3), rng.randint(0, 2), rng.randint(1, 2), rng.randint(1, 12))
            if leg.num_consumers > source.num_objects:
                continue
            seen.update(read(source, leftovers(source, legs, 3), leg))
            legs.append(leg)
        left = leftovers(source, legs, 3)
        seen.update(read(source, left, of(1, 0, 1, len(left._slots))))
        assert len(set(seen.values())) == 1, legs


def test_a_resume_within_a_leg_is_exact():
    source, first = Numbers([5, 8, 2]), of(2, 0, 1, 4)
    left = leftovers(source, [first], 0)
    for consumer in range(3):
        whole = list(islice(left.slots(source, 3, consumer, 0, 0, ORDER_VERSION), 40))
        for start in (1, 3, 17):
            assert list(islice(left.slots(source, 3, consumer, 0, start, ORDER_VERSION), 10)) == [
                *whole[start : start + 10]
            ]


def test_nothing_is_left_of_nothing():
    source = Numbers([4, 4])
    left = leftovers(source, [of(2, 0, 1, 0)], 0)
    assert left.first_pass == 0
    one, other = (islice(s, 20) for s in (left.slots(source, 2, 1, 0, 3, 2), source.slots(2, 1, 0, 3, 2)))
    assert [(s.pass_index, s.part, s.rank) for s in one] == [(s.pass_index, s.part, s.rank) for s in other]
    assert Leftovers().first_pass == 0


@pytest.mark.parametrize(
    "values",
    [3, [3], [[1, 2, 3]], [[1, 0, 1, 2, "4"]], [[0, 0, 1, 2, 4]], [[1, 0, 1, 99, 4]], [[1, 0, 1, 2, -1]]],
)
def test_legs_of_another_form(values):
    assert legs_of([[1, 0, 2, 1, 7]]) == [of(1, 0, 2, 7, version=1)]
    with pytest.raises(ValueError, match="leg"):
        legs_of(values)
