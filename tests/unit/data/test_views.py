import numpy as np
import pytest
import torch

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, orbit_poses, spiral_angles
from lgm.data.schema.sample import CameraRecord
from lgm.data.views import CanonicalViews, HeldOutViews, OrthogonalRandomViews, RandomViews, WindowViews

CANONICAL = (0, 1, 2, 3)
TRAINING = [RandomViews, WindowViews, CanonicalViews, OrthogonalRandomViews]


def cameras(num_views: int, canonical: tuple[int, ...] = CANONICAL) -> CameraRecord:
    """The canonical views, then a spiral."""
    elevation_deg, azimuth_deg = spiral_angles(num_views - len(canonical))
    elevation_deg = torch.cat([torch.zeros(len(canonical)), elevation_deg])
    azimuth_deg = torch.cat([torch.tensor(CANONICAL_AZIMUTHS_DEG[: len(canonical)]), azimuth_deg])
    return CameraRecord(49.1, orbit_poses(elevation_deg, azimuth_deg).double().numpy(), canonical)


def angles(record: CameraRecord, views: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Elevation and azimuth in degrees, from the positions."""
    x, y, z = record.c2w[list(views), :3, 3].T
    return np.degrees(np.arcsin(y / 1.5)), np.degrees(np.arctan2(x, z))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("sampler", TRAINING)
@pytest.mark.parametrize("num_target_views", [2, 4, 8, 24])
def test_all_for_training_supervise_their_inputs_and_as_many_others_as_asked(sampler, num_target_views, rng):
    record = cameras(100)
    for _ in range(20):
        choice = sampler(4, num_target_views).choose(record, rng)
        assert len(set(choice.input)) == 4
        assert len(set(choice.target)) == len(choice.target) == num_target_views
        assert choice.target[:4] == choice.input[:num_target_views]
        assert {type(i) for i in (*choice.input, *choice.target)} == {int}


@pytest.mark.parametrize("sampler", TRAINING)
def test_all_for_training_supervise_every_view_sooner_or_later(sampler, rng):
    chooses = sampler(4, 8)
    record = cameras(100)
    seen = {view for _ in range(400) for view in chooses.choose(record, rng).target}
    assert seen == set(range(100))


@pytest.mark.parametrize("sampler", TRAINING)
def test_a_choice_is_a_function_of_the_random_numbers(sampler):
    chooses, record = sampler(4, 8), cameras(100)
    first, again, other = (chooses.choose(record, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_random_draws_all_views_as_inputs(rng):
    record, sampler = cameras(20), RandomViews(4, 8)
    assert {view for _ in range(100) for view in sampler.choose(record, rng).input} == set(range(20))


def test_canonical_ring_may_start_anywhere_and_keeps_its_order(rng):
    firsts = set()
    for _ in range(50):
        choice = CanonicalViews(4, 6).choose(cameras(20), rng)
        start = choice.input[0]
        firsts.add(start)
        assert choice.input == tuple((start + i) % 4 for i in range(4))
    assert firsts == {0, 1, 2, 3}


def test_the_window_of_a_hundred_spiral_views_is_the_released_programs(rng):
    record, sampler = cameras(104), WindowViews(4, 8)
    seen = {view for _ in range(400) for view in sampler.choose(record, rng).input}
    assert seen == {4 + i for i in range(36, 73)}


def test_the_window_leaves_out_canonical_views_wherever_they_stand(rng):
    record = cameras(24)
    moved = [*range(4, 14), 0, 1, 2, 3, *range(14, 24)]  # in the middle of the spiral
    record = CameraRecord(record.fov_y_deg, record.c2w[moved], (10, 11, 12, 13))
    seen = {view for _ in range(200) for view in WindowViews(4, 8).choose(record, rng).input}
    assert seen == {8, 9, 14, 15, 16, 17, 18}  # 8 to 14 of the 20 on the spiral


def test_a_window_may_lie_elsewhere(rng):
    sampler = WindowViews(4, 4, start=0.0, stop=0.25)
    seen = {view for _ in range(100) for view in sampler.choose(cameras(24), rng).input}
    assert seen == {4, 5, 6, 7, 8, 9}
    with pytest.raises(ValueError, match=r"start=0.7 and stop=0.2"):
        WindowViews(4, 8, 0.7, 0.2)


@pytest.mark.parametrize(("num_views", "tolerance_deg"), [(100, 11.0), (100, 15.0), (40, 15.0), (24, 25.0)])
def test_orthogonal_inputs_stand_on_a_ring_to_within_the_tolerance(num_views, tolerance_deg, rng):
    record, sampler = cameras(num_views), OrthogonalRandomViews(4, 8, tolerance_deg)
    for _ in range(50):
        choice = sampler.choose(record, rng)
        assert not {*choice.input} & {*CANONICAL}
        elevation, azimuth = angles(record, choice.input)
        assert abs(elevation - elevation[0]).max() <= tolerance_deg
        off = (azimuth - azimuth[0] - 90 * np.arange(4) + 180) % 360 - 180
        assert abs(off).max() <= tolerance_deg


def test_orthogonal_rings_are_found_on_all_sides_and_heights_but_the_poles(rng):
    record, sampler = cameras(100), OrthogonalRandomViews(4, 8)
    firsts = tuple(sampler.choose(record, rng).input[0] for _ in range(600))
    elevation, azimuth = angles(record, firsts)
    assert len(set(firsts)) > 75  # of the 82 views on the spiral within 60° of the horizon
    assert -60 <= elevation.min() < -55 and 55 < elevation.max() <= 60
    assert np.histogram(azimuth, 8, (-180, 180))[0].min() > 40


def test_orthogonal_is_exact_where_the_views_are(rng):
    """Two rings of eight views at other heights: what is drawn lies on one of them."""
    c2w = orbit_poses(torch.tensor([10.0] * 8 + [-40.0] * 8), torch.arange(16) * 45.0)
    record = CameraRecord(49.1, c2w.double().numpy(), ())
    for _ in range(30):
        views = OrthogonalRandomViews(4, 8, tolerance_deg=1.0).choose(record, rng).input
        assert [(view - views[0]) % 8 for view in views] == [0, 2, 4, 6]
        assert len({view // 8 for view in views}) == 1


def test_orthogonal_says_what_it_needs(rng):
    with pytest.raises(ValueError, match=r"among its 20 views .*tolerance_deg=15.0, more views or a larger"):
        OrthogonalRandomViews(4, 8).choose(cameras(24), rng)
    only_canonical = CameraRecord(49.1, cameras(8).c2w[:4], CANONICAL)
    for sampler, message in ((OrthogonalRandomViews, "among its 0 views"), (WindowViews, "it has 0 views")):
        with pytest.raises(ValueError, match=message):
            sampler(4, 4).choose(only_canonical, rng)
    with pytest.raises(ValueError, match=r"tolerance_deg=45 .* 45"):
        OrthogonalRandomViews(4, 8, tolerance_deg=45)
    with pytest.raises(ValueError, match=r"max_elevation_deg=91"):
        OrthogonalRandomViews(4, 8, max_elevation_deg=91)


def test_held_out_targets_were_never_inputs(rng):
    choice = HeldOutViews(4).choose(cameras(24), rng)
    assert choice.input == CANONICAL
    assert choice.target == tuple(range(4, 24))
    few = HeldOutViews(4, 3).choose(cameras(24), rng)
    assert few.target == (4, 14, 23)


def test_held_out_views_leave_out_all_canonical_ones_even_with_fewer_inputs(rng):
    choice = HeldOutViews(2).choose(cameras(10), rng)
    assert choice.input == (0, 1) and choice.target == (4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    "sampler", [RandomViews(4, 8), CanonicalViews(4, 8), HeldOutViews(4, 5), WindowViews(4, 6)]
)
def test_too_few_views_are_named(sampler, rng):
    with pytest.raises(ValueError, match="needed"):
        sampler.choose(cameras(7), rng)


@pytest.mark.parametrize("sampler", TRAINING)
def test_too_few_views_to_supervise_are_named(sampler, rng):
    with pytest.raises(ValueError, match="it has 60 views, 61 are needed"):
        sampler(4, 61).choose(cameras(60), rng)


@pytest.mark.parametrize("sampler", TRAINING)
def test_counts_below_one_are_refused(sampler):
    with pytest.raises(ValueError, match="num_target_views=0 must be at least 1"):
        sampler(4, 0)


def test_missing_canonical_inputs_are_named(rng):
    with pytest.raises(ValueError, match="canonical_inputs"):
        HeldOutViews(4).choose(cameras(20, ()), rng)
