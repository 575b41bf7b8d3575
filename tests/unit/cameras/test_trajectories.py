"""Where the cameras of a rendered set stand."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from data_tools.shared.plan import make_plan
from data_tools.shared.trajectories import TRAJECTORIES
from lgm.cameras import orbit_poses, spiral_angles

CONFIGS = Path(__file__).parents[3] / "configs"


def protocol_views(name: str):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return instantiate(compose("train", overrides=["run_dir=/tmp/x", f"protocol={name}"]).protocol.views)


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_the_first_four_are_canonical(name):
    plan = make_plan(trajectory=name)
    expected = orbit_poses([0.0] * 4, [0.0, 90.0, 180.0, 270.0]).numpy()
    np.testing.assert_allclose(plan.c2w[:4], expected, atol=1e-6)
    assert plan.num_views == TRAJECTORIES[name].num_views
    assert plan.summary()["trajectory"] == f"canonical4+{name}"


def test_the_spiral_is_what_it_was():
    plan = make_plan(num_views=24)
    elevation_deg, azimuth_deg = spiral_angles(20)
    assert np.array_equal(plan.c2w[4:], orbit_poses(elevation_deg, azimuth_deg).double().numpy())
    assert plan.distances == (1.5, 1.5) and plan.depth_unit == 2.5 / 65535


@pytest.mark.parametrize(
    ("name", "trajectory", "num_targets"),
    [("gslrm_like", "gslrm_like", 32), ("grm_like", "grm_like", 60), ("gso_gslrm", "instant3d", 10)],
)
def test_a_protocols_trajectory_serves_it_and_others_do_not(name, trajectory, num_targets):
    sampler = protocol_views(name)
    choice = sampler.choose(make_plan(trajectory=trajectory).camera_record(), np.random.default_rng(0))
    assert len(choice.input) == 4 and len(choice.target) == num_targets
    assert f"--trajectory {trajectory}" in sampler.remedy
    with pytest.raises(ValueError, match="it has no view within 5°"):
        sampler.choose(make_plan().camera_record(), np.random.default_rng(0))


def test_the_spiral_serves_lgm_window():
    record = make_plan().camera_record()
    choice = protocol_views("lgm_window").choose(record, np.random.default_rng(0))
    assert len({*choice.input, *choice.target}) == 8


def test_distances_of_gslrm_like_cover_their_range():
    plan = make_plan(trajectory="gslrm_like", num_views=16)
    distances = np.linalg.norm(plan.c2w[8:, :3, 3], axis=1)
    assert len(distances) == 8 and 1.5 <= distances.min() < 1.7 and 2.6 < distances.max() <= 2.8
    assert plan.distances[1] == pytest.approx(distances.max(), abs=1e-4)
    assert plan.depth_unit == pytest.approx((distances.max() + 1) / 65535, abs=1e-8)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"trajectory": "orbit"}, "'orbit' is none of spiral, gslrm_like, grm_like"),
        ({"trajectory": "grm_like", "num_views": 20}, "--trajectory grm_like has 68; leave it out"),
        ({"trajectory": "gslrm_like", "num_views": 8}, "--views 8 is too few for --trajectory gslrm_like"),
    ],
)
def test_what_no_trajectory_has(options, match):
    with pytest.raises(ValueError, match=match):
        make_plan(**options)
