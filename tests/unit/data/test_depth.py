"""Depth on its way from renders to a number."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_tools.engines.base import ViewPasses
from data_tools.pack import command as pack
from data_tools.shared.plan import make_plan
from data_tools.shared.renders import check_settings, write_object
from data_tools.verify import command as verify
from lgm.data.schema.decode import decode_depths
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.shards import ShardSource
from lgm.data.sources.synthetic import SyntheticSource
from lgm.data.stream.batches import EvalStream, TrainStream
from lgm.data.views import HeldOutViews, RandomViews
from lgm.metrics import Measurement, Protocol
from lgm.preparation.prepare import Preparation
from lgm.types import Prediction, RenderOutput
from tests.unit.data_tools.test_data_tools_shards import rewrite

SIZE, NUM_VIEWS = 16, 6


def views(size: int = SIZE):
    """A plate before a wall without depth; its depth grows from left to right, and from view to view."""
    inside = np.zeros((size, size), bool)
    inside[size // 4 : -size // 4, size // 4 : -size // 4] = True
    for number in range(NUM_VIEWS):
        image = np.full((size, size, 4), 255, np.uint8)  # no outline that could contradict its camera
        depth = np.where(inside, 1.0 + 0.1 * number + np.arange(size) / size / 10, 0).astype(np.float32)
        yield ViewPasses(image, depth, np.zeros((size, size, 3), np.float32))


@pytest.fixture(scope="module")
def renders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("renders")
    plan = make_plan(resolution=SIZE, num_views=NUM_VIEWS, geometry=True)
    check_settings(folder, {**plan.summary(), "engine": "none", "engine_version": "1"})
    for uid in ("one", "two"):
        write_object(folder, {"uid": uid}, plan, views(), "png")
    return folder


def packed(renders, out, *options):
    assert pack.main([str(renders), "--out", str(out), "--workers", "1", *options]) == 0
    return out


def test_packed_depth_is_what_was_rendered(renders, tmp_path, capsys):
    folder = packed(renders, tmp_path / "shards", "--depth")
    assert verify.main([str(folder), "--workers", "1"]) == 0
    depths = ShardSource(folder).load(0, 0).depths([0, 5])
    expected = [view.depth for view in views()]
    np.testing.assert_allclose(depths, np.stack([expected[0], expected[5]]), atol=2.5 / 65535)
    assert depths.dtype == np.float32
    small = packed(renders, tmp_path / "small", "--depth", "--resolution", "8")
    depths = ShardSource(small).load(0, 0).depths([0])
    assert depths.shape == (1, 8, 8) and set(depths[0, :, 0]) == {0.0}
    np.testing.assert_allclose(depths[0, 4, 4], expected[0][9, 9], atol=1e-4)


def test_depth_is_left_out_unless_asked_for(renders, tmp_path):
    folder = packed(renders, tmp_path / "shards")
    assert ShardSource(folder).load(0, 0).depths([0]) is None
    index = json.loads((folder / "index.json").read_text())
    assert "depth" not in index["render"]


def test_depth_that_was_not_rendered_cannot_be_packed(tmp_path):
    plan = make_plan(resolution=SIZE, num_views=4)
    check_settings(tmp_path / "plain", {**plan.summary(), "engine": "none", "engine_version": "1"})
    write_object(tmp_path / "plain", {"uid": "a"}, plan, (v.image for v in list(views())[:4]), "png")
    with pytest.raises(ValueError, match="has no depth; render it with --geometry"):
        packed(tmp_path / "plain", tmp_path / "out", "--depth")


def test_verify_misses_depth(renders, tmp_path, capsys):
    folder = packed(renders, tmp_path / "shards", "--depth")
    rewrite(folder, lambda members: {k: v for k, v in members.items() if k != "one.depth_003.png"})
    capsys.readouterr()
    assert verify.main([str(folder), "--workers", "1"]) == 1
    assert "view 3: depth_003.png is missing" in capsys.readouterr().out


def test_a_depth_that_is_no_image_is_named_in_the_same_words_each_time():
    with pytest.raises(BrokenSample, match=r"'a': depth 3 cannot be decoded: 7 bytes, no PNG$"):
        decode_depths([b"garbage"], [3], "a", 1.0)


def synthetic_batch(count: int = 2):
    source = SyntheticSource(num_objects=count, num_views=8, resolution=32)
    return next(iter(EvalStream(source, HeldOutViews(4), batch_size=count, with_geometry=True)))


def test_a_perfect_prediction_has_no_depth_error_and_a_shifted_one_its_shift():
    batch = Preparation(input_size=32, target_size=32)(synthetic_batch())
    target = batch.target
    table = {}
    for name, shift in (("perfect", 0.0), ("shifted", 0.25)):
        depths = (target.depths + shift) * target.alphas
        render = RenderOutput(target.images, target.alphas, depths)
        measurement = Measurement(Protocol({"name": "p"}))
        source = SyntheticSource(num_objects=2, num_views=8, resolution=32)
        gaussians = source.load(0, 0).gaussians
        packed_twice = type(gaussians).from_packed(gaussians.packed().expand(2, -1, -1))
        measurement.add(Prediction(batch, packed_twice, render))
        table[name] = measurement.table().mean("depth_l1", partly=True)
        assert "depth_l1" not in measurement.reasons()
    assert table["perfect"] == pytest.approx(0.0, abs=1e-6)
    assert table["shifted"] == pytest.approx(0.25, abs=1e-5)


def test_depth_follows_the_frame_and_the_size():
    """Cameras twice as far away, and images half the size."""
    batch = synthetic_batch()
    c2w = batch.input.cameras.c2w.clone()
    c2w[..., :3, 3] *= 2
    far = replace(batch.input, cameras=replace(batch.input.cameras, c2w=c2w))
    prepared = Preparation(input_size=32, target_size=16)(replace(batch, input=far))
    assert prepared.target.depths.shape == (2, 4, 1, 16, 16)
    torch.testing.assert_close(prepared.target.depths, batch.target.depths[..., 1::2, 1::2] / 2)


def test_depth_stays_where_the_data_are_scaled():
    """Their cameras stay where they are, and what they see as far away."""
    batch = replace(synthetic_batch(), scaled=True)
    prepared = Preparation(input_size=32, target_size=32, radius=3.0)(batch)
    torch.testing.assert_close(prepared.target.depths, batch.target.depths)
    distances = batch.target.cameras.centers.norm(dim=-1)
    torch.testing.assert_close(prepared.target.cameras.centers.norm(dim=-1), distances)


def test_sets_without_depth_say_so(dataset):
    batch = next(iter(EvalStream(ShardSource(dataset), HeldOutViews(4), batch_size=2, with_geometry=True)))
    assert batch.target.depths is None
    assert Preparation(32, 32)(batch).target.depths is None


def test_depth_is_read_where_it_is_measured_alone():
    source = SyntheticSource(num_objects=2, num_views=8, resolution=32)
    assert next(iter(EvalStream(source, HeldOutViews(4), batch_size=2))).target.depths is None


def test_training_gets_images_and_cameras_alone():
    source = SyntheticSource(num_objects=2, num_views=8, resolution=32)
    batch = next(iter(TrainStream(source, RandomViews(4, 6), batch_size=2, seed=0)))
    assert batch.to_user is None and batch.target.depths is None
    assert Preparation(32, 32)(batch, training=True).up is None
    measured = synthetic_batch()
    assert measured.to_user is not None and Preparation(32, 32)(measured).up is not None
