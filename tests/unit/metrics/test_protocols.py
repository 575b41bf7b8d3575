"""Protocols: their hash, and the views that they choose."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lgm.cameras import Cameras, angles_about, canonical_up, canonicalise, orbit_poses
from lgm.cli.build import build_eval_preparation
from lgm.data.order import object_rng
from lgm.data.schema.sample import CameraRecord
from lgm.data.views import ClusteredViews, PosedViews, RandomTargets, RingTargets, TrajectoryViews
from lgm.data.views.clusters import cluster_positions
from lgm.metrics import Protocol
from lgm.preparation.augment import Augmentation

CONFIGS = Path(__file__).parents[3] / "configs"
NAMES = (
    "canonical4",
    "canonical4_rough",
    "lgm_window",
    "lgm_printed",
    "gslrm_like",
    "grm_like",
    "gso_gslrm",
    "gso_grm",
    "gso_lara",
    "gso_lgm",
    "own_images",
)
# What a protocol measures otherwise than all: LaRa's SSIM pads nothing.
OTHER_METRICS = {"gso_lara": {"ssim_border": "cropped"}}


def composed(name: str, *overrides: str):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=["run_dir=/tmp/run", f"protocol={name}", *overrides])


def protocol(name: str, *overrides: str) -> Protocol:
    return Protocol(OmegaConf.to_container(composed(name, *overrides).protocol, resolve=True))


def cameras(elevation_deg, azimuth_deg, radius=1.5, canonical=()) -> CameraRecord:
    radius = torch.as_tensor(radius, dtype=torch.float64)
    return CameraRecord(49.1, orbit_poses(elevation_deg, azimuth_deg, radius).double().numpy(), canonical)


@pytest.mark.parametrize("name", [*NAMES, "metrics/default"])
def test_every_parameter_says_where_it_comes_from(name):
    known = ("assumed", "arXiv", "released program")
    for line in (CONFIGS / "protocol" / f"{name}.yaml").read_text().splitlines():
        setting = re.match(r"\s*(\w+): *([^#\s].*)?", line)
        if setting is None or setting[1] in ("name", "_target_"):
            continue
        is_section = not re.sub("#.*", "", setting[2] or "").strip()
        assert is_section or any(word in line for word in known), line


def test_every_protocol_is_here():
    assert sorted(NAMES) == sorted(path.stem for path in (CONFIGS / "protocol").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_protocols_share_the_conventions_of_their_metrics(name):
    """In the content, and so in the hash, they stand as if each stated them itself."""
    shared = OmegaConf.to_container(OmegaConf.load(CONFIGS / "protocol" / "metrics" / "default.yaml"))
    content = protocol(name).content
    assert content["metrics"] == {**shared, **OTHER_METRICS.get(name, {})} and "defaults" not in content


def test_a_hash_is_of_the_content_alone():
    a = Protocol({"name": "x", "target_size": 256, "views": {"a": 1, "b": [1, 2]}})
    b = Protocol({"views": {"b": (1.0, 2.0), "a": 1.0}, "target_size": 256.0, "name": "x"})
    assert a.hash == b.hash and re.fullmatch("[0-9a-f]{12}", a.hash)
    for change in ({"target_size": 128}, {"name": "y"}, {"metrics": {"alpha_threshold": 0.4}}):
        assert Protocol({**a.content, **change}).hash != a.hash


def test_a_hash_changes_with_what_the_numbers_depend_on_and_with_nothing_else():
    plain = protocol("canonical4")
    assert protocol("canonical4", "data.eval_batch_size=1", "train.seed=3").hash == plain.hash
    for change in ("resolution.target_size=64", "protocol.seed=1", "protocol.metrics.ssim_border=cropped"):
        assert protocol("canonical4", change).hash != plain.hash
    assert len({protocol(name).hash for name in NAMES}) == len(NAMES)


def test_conventions_of_the_code_are_in_the_hash(monkeypatch):
    before = Protocol({"name": "x"}).hash
    monkeypatch.setattr("lgm.metrics.protocol.CONVENTIONS", {"psnr": "another"})
    assert Protocol({"name": "x"}).hash != before


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({}, "needs a name"),
        ({"name": "x", "metrics": {"lpips": ["squeeze"]}}, "lpips='squeeze' is not one of vgg, alex"),
        ({"name": "x", "metrics": {"alpha_threshold": 1}}, "alpha_threshold=1 must lie between 0 and 1"),
        (
            {"name": "x", "metrics": {"level_elevation_deg": -5}},
            r"level_elevation_deg=-5 must lie in 0\.\.90",
        ),
        ({"name": "x", "metrics": {"ssim_border": "zero"}}, "ssim_border='zero' is not one of"),
        ({"name": "x", "metrics": {"iou": 1}}, "protocol.metrics of x: .*iou"),
        ({"name": "x", "metrics": {"bootstrap": {"confidence": 95}}}, "lie between 0 and 1"),
    ],
)
def test_a_wrong_option_is_named(content, match):
    with pytest.raises(ValueError, match=match):
        Protocol(content)


def test_canonical4_rough_is_canonical4_with_disturbed_inputs():
    rough, plain = composed("canonical4_rough"), composed("canonical4")
    net = SimpleNamespace(input_size=64)
    disturbance = build_eval_preparation(rough, net).disturbance
    assert disturbance == replace(
        Augmentation(), camera_jitter=disturbance.camera_jitter, erosion=disturbance.erosion
    )
    assert (disturbance.camera_jitter.max_azimuth_deg, disturbance.erosion.max_pixels) == (3.0, 2)
    assert build_eval_preparation(plain, net).disturbance == Augmentation()
    rest = {key: value for key, value in rough.protocol.items() if key not in ("name", "disturbance")}
    assert rest == {key: value for key, value in plain.protocol.items() if key != "name"}


def test_grm_like_on_its_own_cameras():
    rings = [10.0, 20.0, 30.0, 40.0]
    record = cameras(
        [0.0] * 4 + [e for e in rings for _ in range(16)],
        [0.0, 90.0, 180.0, 270.0] + [22.5 * i for _ in rings for i in range(16)],
        canonical=(0, 1, 2, 3),
    )
    sampler = instantiate(composed("grm_like").protocol.views)
    choice = sampler.choose(record, np.random.default_rng(0))
    assert choice.input == (20, 24, 28, 32)  # of the ring at 20°
    assert len(choice.target) == 60 and not set(choice.target) & {*choice.input, 0, 1, 2, 3}


def test_gslrm_like_draws_by_the_objects_name():
    rng = np.random.default_rng(0)
    height, azimuth, radius = rng.uniform(-1, 1, 60), rng.uniform(0, 360, 60), rng.uniform(1.5, 2.8, 60)
    record = cameras(
        [0.0] * 4 + [20.0] * 4 + np.degrees(np.arcsin(height)).tolist(),
        [0.0, 90.0, 180.0, 270.0] * 2 + azimuth.tolist(),
        [1.5] * 8 + radius.tolist(),
        canonical=(0, 1, 2, 3),
    )
    sampler = instantiate(composed("gslrm_like").protocol.views)
    choices = {uid: sampler.choose(record, object_rng(0, uid)) for uid in "abc"}
    assert all(choice.input == (4, 5, 6, 7) and len(choice.target) == 32 for choice in choices.values())
    assert all(min(choice.target) >= 8 for choice in choices.values())
    assert len({choice.target for choice in choices.values()}) == 3
    assert sampler.choose(record, object_rng(0, "a")) == choices["a"]
    assert sampler.choose(record, object_rng(1, "a")) != choices["a"]


def test_gso_protocols_state_the_papers_values():
    """Each as its paper or released program prints it: docs/reference/gso.md has the sources."""
    gslrm, grm, lara, lgm = (protocol(f"gso_{name}").content for name in ("gslrm", "grm", "lara", "lgm"))
    assert gslrm["views"]["input_azimuths_deg"] == [45, 135, 225, 315]
    assert (gslrm["views"]["input_elevation_deg"], gslrm["views"]["targets"]["count"]) == (20.0, 10)
    rings = grm["views"]["targets"]
    assert (rings["elevations_deg"], rings["num_azimuths"]) == ([10.0, 20.0, 30.0, 40.0], 16)
    assert lara["views"]["num_target_views"] == 4
    assert all(content["target_size"] == 512 for content in (gslrm, grm, lara, lgm))
    assert all(content["background"] == [1.0, 1.0, 1.0] for content in (gslrm, grm, lara, lgm))


def test_clusters_are_those_of_the_positions():
    rng = np.random.default_rng(0)
    corners = np.array([[1.5, 0, 0], [-1.5, 0, 0], [0, 1.5, 0], [0, 0, 1.5]])
    expected = rng.permutation(np.repeat(np.arange(4), 9))
    found = cluster_positions(corners[expected] + rng.normal(0, 0.1, (36, 3)), 4)
    pairs = set(zip(expected.tolist(), found.tolist(), strict=True))
    assert len(pairs) == 4  # one name for another
    with pytest.raises(ValueError, match="its cameras stand at 1 places, 2 clusters are needed"):
        cluster_positions(np.ones((5, 3)), 2)


def test_gso_lara_takes_the_first_and_the_last_of_each_cluster():
    azimuth = [0.0, 90.0, 180.0, 270.0] + [
        base + step for step in (0.0, 4.0, 9.0) for base in (10, 100, 190, 280)
    ]
    record = cameras([0.0] * 16, azimuth, canonical=(0, 1, 2, 3))
    sampler = instantiate(composed("gso_lara").protocol.views)
    choice = sampler.choose(record, np.random.default_rng(0))
    assert choice.input == (4, 5, 6, 7) and choice.target == (12, 13, 14, 15)
    with pytest.raises(ValueError, match="it has 4 views besides canonical ones, 8 are needed"):
        sampler.choose(cameras([0.0] * 8, azimuth[:8], canonical=(0, 1, 2, 3)), np.random.default_rng(0))


def test_a_target_of_a_cluster_is_never_an_input():
    record = cameras([0.0] * 8, [0.0, 2.0, 90.0, 92.0, 180.0, 182.0, 270.0, 272.0])
    choice = ClusteredViews(4, 2).choose(record, np.random.default_rng(0))
    assert len(choice.target) == 2 and not set(choice.target) & set(choice.input)
    alone = cameras([0.0] * 8, [0.0, 90.0, 180.0, 181.0, 182.0, 183.0, 184.0, 270.0])
    with pytest.raises(ValueError, match="has no view but inputs; render more views"):
        ClusteredViews(4, 4).choose(alone, np.random.default_rng(0))


def test_a_view_near_enough_is_taken_and_one_too_far_is_refused():
    record = cameras([23.0, 17.0, 20.0, 20.0, 50.0], [2.0, 90.0, 181.0, 270.0, 0.0])
    sampler = PosedViews(
        4, 20.0, [0, 90, 180, 270], 1.5, RingTargets([50.0], 1, 1.5, 5.0, 0.05), 5.0, 0.05, "x"
    )
    assert sampler.choose(record, np.random.default_rng(0)).input == (0, 1, 2, 3)
    far = cameras([26.0, 17.0, 20.0, 20.0, 50.0], [2.0, 90.0, 181.0, 270.0, 0.0])
    with pytest.raises(
        ValueError, match=r"no view within 5° of elevation 20°, azimuth 0°.*nearest is 6\.\d° off"
    ):
        sampler.choose(far, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"no view at distance 1.5 ± 0.05 \(its views stand 2 to 2 from"):
        sampler.choose(cameras([20.0] * 4, [0.0, 90.0, 180.0, 270.0], 2.0), np.random.default_rng(0))
    assert "--trajectory x" in sampler.remedy


def test_targets_at_one_distance_are_no_targets_at_random_ones():
    record = cameras([10.0 * i for i in range(9)], [40.0 * i for i in range(9)])
    with pytest.raises(
        ValueError, match=r"stand 1.5 to 1.5 from the centre, targets at distances of 1.5 to 2.8"
    ):
        RandomTargets(4, [1.5, 2.8]).choose(record, [0], np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"8 views besides inputs .* 9 are needed"):
        RandomTargets(9, [1.5, 2.8]).choose(record, [0], np.random.default_rng(0))
    assert len(RandomTargets(8, [1.5, 1.5]).choose(record, [0], np.random.default_rng(0))) == 8


def test_lgm_window_is_the_released_programs_views_of_its_hundred():
    record = cameras([0.0] * 104, [3.0 * i for i in range(104)], canonical=(0, 1, 2, 3))
    sampler = instantiate(composed("lgm_window").protocol.views)
    choice = sampler.choose(record, np.random.default_rng(0))
    assert [view - 4 for view in choice.input] == [36, 40, 44, 48]
    assert [view - 4 for view in choice.target] == [52, 56, 60, 64]


def test_lgm_printed_renders_its_inputs_too():
    record = cameras([0.0] * 104, [3.0 * i for i in range(104)], canonical=(0, 1, 2, 3))
    choice = instantiate(composed("lgm_printed").protocol.views).choose(record, np.random.default_rng(0))
    assert [view - 4 for view in choice.input] == [36, 40, 44, 48]
    assert [view - 4 for view in choice.target] == [36, 40, 44, 48, 52, 56, 60, 64]
    assert protocol("lgm_printed").released_psnr and not protocol("lgm_window").released_psnr


def test_a_short_trajectory_gives_distinct_views_or_none():
    short = cameras([0.0] * 24, [15.0 * i for i in range(24)], canonical=(0, 1, 2, 3))
    sampler = instantiate(composed("lgm_window").protocol.views)
    choice = sampler.choose(short, np.random.default_rng(0))
    assert len({*choice.input, *choice.target}) == 8
    with pytest.raises(ValueError, match=r"trajectory of 6 views has none left within 0.08"):
        sampler.choose(cameras([0.0] * 6, [60.0 * i for i in range(6)]), np.random.default_rng(0))


def test_more_inputs_than_a_protocol_lists():
    with pytest.raises(ValueError, match="has 4 inputs and the network takes 6"):
        TrajectoryViews(6, [0.1, 0.2, 0.3, 0.4], [0.5], 0.1)


def test_elevations_are_the_datas_own_whatever_the_first_input():
    elevation_deg, azimuth_deg = [20.0, -40.0, 75.0], [30.0, 120.0, 359.0]
    views = Cameras.orbit(elevation_deg, azimuth_deg)
    moved = canonicalise(views.c2w, views.c2w[0])
    torch.testing.assert_close(moved[0, :3, 3], torch.tensor([0.0, 0.0, 1.5]), atol=1e-5, rtol=0)
    up = canonical_up(views.c2w[0])
    elevation, azimuth = angles_about(up, moved[0, :3, 3], moved[:, :3, 3])
    torch.testing.assert_close(elevation, torch.tensor(elevation_deg), atol=1e-3, rtol=0)
    torch.testing.assert_close(azimuth, torch.tensor([0.0, 90.0, 329.0]), atol=1e-3, rtol=0)
