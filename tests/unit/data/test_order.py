"""The order of samples by the first rule, by which older runs go on: no overlap, nothing left out, the same
after a resume."""

from functools import partial
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lgm.data import order as orders
from lgm.data.order import Slot, candidates, view_rng
from lgm.data.order.cards import parts, shares

# The same examples each time, as all that tests draw; and a machine that is slow at drawing them is no fault.
SAME = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


slots = partial(orders.slots, version=1)


def ordinal(slot: Slot, sizes: list[int], seed: int) -> tuple[int, int]:
    return next(candidates(slot, sizes, seed))


@settings(SAME, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    num_consumers=st.integers(1, 9),
    seed=st.integers(0, 3),
    pass_index=st.integers(0, 2),
)
def test_a_pass_reads_every_object_exactly_once(sizes, num_consumers, seed, pass_index):
    read = []
    for consumer in range(num_consumers):
        for part in shares(sizes, num_consumers, consumer, seed, pass_index):
            read += [(part.shard, i) for i in part.ordinals(sizes[part.shard], seed, pass_index)]
    assert sorted(read) == [(s, i) for s, size in enumerate(sizes) for i in range(size)]


@settings(SAME, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    num_consumers=st.integers(1, 4),
    start=st.integers(0, 60),
)
def test_a_resumed_stream_goes_on_where_it_stood(sizes, num_consumers, start):
    if sum(sizes) < num_consumers:
        return
    whole = list(islice(slots(sizes, num_consumers, 0, seed=5), start + 20))
    resumed = list(islice(slots(sizes, num_consumers, 0, seed=5, start=start), 20))
    assert resumed == whole[start:]
    assert [slot.position for slot in whole] == list(range(start + 20))


@settings(SAME, max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    repeats=st.integers(1, 4),
    start=st.integers(0, 60),
)
def test_a_part_that_is_read_several_times_is_read_in_other_orders(sizes, repeats, start):
    total = sum(sizes)
    once = list(islice(slots(sizes, 1, 0, seed=5), total))
    whole = list(islice(slots(sizes, 1, 0, seed=5, repeats=repeats), total * repeats + start))
    assert (
        list(islice(slots(sizes, 1, 0, seed=5, start=start, repeats=repeats), 9))
        == [*whole, *islice(slots(sizes, 1, 0, seed=5, start=len(whole), repeats=repeats), 9)][
            start : start + 9
        ]
    )
    of_parts = [slot.part for slot in once]
    first = [part for k, part in enumerate(of_parts) if k == 0 or part != of_parts[k - 1]]
    expected = [part for part in first for _ in range(repeats * part.size(sizes[part.shard]))]
    assert [slot.part for slot in whole[: total * repeats]] == expected
    assert len({(slot.pass_index, slot.part, slot.rank) for slot in whole}) == len(whole)


def test_every_consumer_has_work_when_objects_suffice():
    for sizes in ([100], [1, 50], [3, 3, 3]):
        for num_consumers in (1, 2, 5, 8):
            if sum(sizes) >= num_consumers:
                cut = parts(sizes, num_consumers)
                assert len(cut) >= num_consumers
                assert all(part.size(sizes[part.shard]) for part in cut)


def test_too_many_consumers_are_refused():
    with pytest.raises(ValueError, match=r"3 objects are too few for 4 loader processes"):
        next(slots([3], 4, 0, seed=0))


def test_passes_and_seeds_differ():
    def order(seed: int, pass_index: int) -> list[tuple[int, int]]:
        chosen = [s for s in islice(slots([20], 1, 0, seed), 60) if s.pass_index == pass_index]
        return [ordinal(s, [20], seed) for s in chosen]

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert order(0, 1) == order(0, 1)


def test_views_depend_on_the_object_not_on_who_reads_it():
    def draw(*key: int) -> list[int]:
        return view_rng(*key).permutation(50).tolist()

    assert draw(0, 1, 2, 3) == draw(0, 1, 2, 3)
    assert draw(0, 1, 2, 3) != draw(0, 1, 2, 4) != draw(0, 2, 2, 4)
