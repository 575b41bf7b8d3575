"""The order of samples by the rule of today: each object once a pass, consumers that stay together, positions
that are computed."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lgm.data.order import ORDER_VERSION, candidates, ranges, slots
from lgm.data.order.ranges import num_before, num_downloads, pieces, range_of

SAME = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=7)


def read(sizes, num_consumers, consumer, stop, start=0, **options) -> list[tuple[int, int, int]]:
    stream = islice(slots(sizes, num_consumers, consumer, 5, start, **options), stop - start)
    return [(slot.pass_index, *next(candidates(slot, sizes, 5))) for slot in stream]


@settings(SAME, max_examples=40)
@given(sizes=SIZES, num_consumers=st.integers(1, 9), pass_index=st.integers(0, 40))
def test_a_pass_reads_every_object_exactly_once(sizes, num_consumers, pass_index):
    found = [
        (piece.shard, int(i))
        for consumer in range(num_consumers)
        for piece in pieces(sizes, num_consumers, consumer, 3, pass_index)
        for i in piece.ordinals(sizes[piece.shard], 3, pass_index)
    ]
    assert sorted(found) == [(s, i) for s, size in enumerate(sizes) for i in range(size)]


@settings(SAME, max_examples=40)
@given(n=st.integers(1, 300), num_consumers=st.integers(1, 40), pass_index=st.integers(0, 10**6))
def test_ranges_are_the_formula(n, num_consumers, pass_index):
    """What is computed is what adding up gives."""
    starts = 0
    for consumer in range(num_consumers):
        before, after = (num_before(p, n, num_consumers, consumer) for p in (pass_index, pass_index + 1))
        assert range_of(pass_index, n, num_consumers, consumer) == (starts, starts + after - before)
        starts += after - before
    assert starts == n


@settings(SAME, max_examples=30)
@given(sizes=SIZES, num_consumers=st.integers(1, 5), start=st.integers(0, 60), repeats=st.integers(1, 3))
def test_a_resumed_stream_goes_on_where_it_stood(sizes, num_consumers, start, repeats):
    if sum(sizes) < num_consumers:
        return
    for consumer in range(num_consumers):
        whole = list(islice(slots(sizes, num_consumers, consumer, 5, repeats=repeats), start + 20))
        again = list(islice(slots(sizes, num_consumers, consumer, 5, start, repeats), 20))
        assert again == whole[start:]
        assert [slot.position for slot in whole] == list(range(start + 20))


@settings(SAME, max_examples=30)
@given(sizes=SIZES, num_consumers=st.integers(1, 9), epochs=st.integers(1, 6))
def test_consumers_stay_together(sizes, num_consumers, epochs):
    """After so many epochs each object was seen as often, or once more or less: however unequal the
    shards."""
    n = sum(sizes)
    if n < num_consumers:
        return
    seen: Counter[tuple[int, int]] = Counter()
    for consumer in range(num_consumers):
        seen.update((s, i) for _, s, i in read(sizes, num_consumers, consumer, epochs * n // num_consumers))
    counts = [seen[s, i] for s, size in enumerate(sizes) for i in range(size)]
    assert epochs - 1 <= min(counts) <= max(counts) <= epochs + 1


def test_five_epochs_of_unequal_shards_on_many_consumers():
    """100 shards on 64 consumers, where dealing whole shards let some objects be seen three times, some
    eight."""
    sizes, consumers = [4] * 99 + [2], 64
    stop, by_rule = 5 * sum(sizes) // consumers, {}
    for version in (1, 2):
        seen: Counter[tuple[int, int]] = Counter()
        for consumer in range(consumers):
            seen.update((s, i) for _, s, i in read(sizes, consumers, consumer, stop, version=version))
        counts = [seen[s, i] for s, size in enumerate(sizes) for i in range(size)]
        by_rule[version] = (min(counts), max(counts))
    assert by_rule[1][1] - by_rule[1][0] >= 4
    assert by_rule[2][0] >= 4 and by_rule[2][1] <= 6
    assert ORDER_VERSION == 2


@settings(SAME, max_examples=15)
@given(sizes=SIZES, start=st.integers(0, 50), repeats=st.integers(1, 3))
def test_one_consumer_reads_what_the_first_rule_has_it_read(sizes, start, repeats):
    both = [read(sizes, 1, 0, start + 20, start, repeats=repeats, version=v) for v in (1, 2)]
    assert both[0] == both[1]


def test_repeats_read_the_same_objects_in_other_orders():
    sizes, consumers, repeats = [8, 8, 8], 2, 3
    stream = list(islice(slots(sizes, consumers, 0, 5, repeats=repeats), 12 * repeats))
    orders = {}
    for slot in stream:
        orders.setdefault((slot.part, slot.pass_index), []).append(next(candidates(slot, sizes, 5)))
    parts = {part for part, _ in orders}
    for part in parts:
        of_part = [order for (other, _), order in orders.items() if other == part]
        assert len(of_part) == repeats and len({frozenset(order) for order in of_part}) == 1
    assert len({tuple(order) for order in orders.values()}) > len(parts)


def test_a_resume_draws_one_pass_however_far_it_is(monkeypatch):
    """The passes before are neither shuffled nor walked."""
    shuffled = []
    layout = ranges._layout
    monkeypatch.setattr(ranges, "_layout", lambda *a: (shuffled.append(a[2]), layout(*a))[1])
    for start in (0, 10**4, 10**9):
        shuffled.clear()
        slot = next(slots([100] * 50, 16, 3, seed=0, start=start))
        assert slot.position == start and len(shuffled) <= 2
        assert slot.pass_index == pytest.approx(start * 16 / 5000, abs=1)


def test_a_machine_fetches_little_more_than_its_part_of_the_set():
    assert num_downloads([1000] * 1000, 64 * 4, 8, seed=0) <= 1008  # 8 borders
    assert num_downloads([1000] * 1000, 64 * 4, 64, seed=0) <= 1064
    # Fewer shards than consumers: each machine has one or two more than its part, not one a consumer.
    assert 100 <= num_downloads([1000] * 100, 512 * 4, 64, seed=0) <= 164
    assert num_downloads([1000], 8, 2, seed=0) == 2


def test_downloads_are_those_of_the_streams():
    sizes, consumers, machines = [5, 9, 7, 30, 2, 11], 12, 4
    touched = 0
    for machine in range(machines):
        shards = set()
        for consumer in range(machine * 3, machine * 3 + 3):
            shards |= {piece.shard for piece in pieces(sizes, consumers, consumer, 0, 0)}
        touched += len(shards)
    assert num_downloads(sizes, consumers, machines, seed=0) == touched


def test_neighbours_read_the_shard_between_them_at_the_same_time():
    sizes, consumers = [100] * 13, 4
    own = [pieces(sizes, consumers, consumer, 0, 2) for consumer in range(consumers)]
    for consumer in range(consumers - 1):
        place = -1 if consumer % 2 == 0 else 0
        assert own[consumer][place].shard == own[consumer + 1][place].shard
    members = np.concatenate([own[c][-1].ordinals(100, 0, 2) for c in (0, 1)])
    assert len(set(members.tolist())) == len(members) == 100
