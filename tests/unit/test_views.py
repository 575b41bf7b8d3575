import numpy as np
import pytest

from lgm.data.views import CanonicalViews, HeldOutViews, RandomViews

CANONICAL = (0, 1, 2, 3)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_random_supervises_its_inputs_and_as_many_others_as_asked(rng):
    seen = set()
    for _ in range(50):
        choice = RandomViews(4, 8).choose(20, CANONICAL, rng)
        assert choice.target[:4] == choice.input
        assert len(set(choice.target)) == 8
        seen |= set(choice.target)
    assert seen == set(range(20))


def test_random_can_supervise_fewer_views_than_it_sees(rng):
    choice = RandomViews(4, 2).choose(20, CANONICAL, rng)
    assert len(choice.input) == 4 and choice.target == choice.input[:2]


def test_canonical_ring_may_start_anywhere_and_keeps_its_order(rng):
    firsts = set()
    for _ in range(50):
        choice = CanonicalViews(4, 6).choose(20, CANONICAL, rng)
        start = choice.input[0]
        firsts.add(start)
        assert choice.input == tuple((start + i) % 4 for i in range(4))
        assert choice.target[:4] == choice.input and len(set(choice.target)) == 6
    assert firsts == {0, 1, 2, 3}


def test_held_out_targets_were_never_inputs(rng):
    choice = HeldOutViews(4).choose(24, CANONICAL, rng)
    assert choice.input == CANONICAL
    assert choice.target == tuple(range(4, 24))
    few = HeldOutViews(4, 3).choose(24, CANONICAL, rng)
    assert few.target == (4, 14, 23)


def test_held_out_views_leave_out_all_canonical_ones_even_with_fewer_inputs(rng):
    choice = HeldOutViews(2).choose(10, CANONICAL, rng)
    assert choice.input == (0, 1) and choice.target == (4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize("sampler", [RandomViews(4, 8), CanonicalViews(4, 8), HeldOutViews(4, 5)])
def test_too_few_views_are_named(sampler, rng):
    with pytest.raises(ValueError, match="needed"):
        sampler.choose(7, CANONICAL, rng)


def test_missing_canonical_inputs_are_named(rng):
    with pytest.raises(ValueError, match="canonical_inputs"):
        HeldOutViews(4).choose(20, (), rng)
