"""Points of the true surface on their way from renders to a batch."""

import io

import numpy as np
import pytest

from data_tools.engines.base import ViewPasses
from data_tools.pack import command as pack
from data_tools.render.surface_points import SurfaceSampler
from data_tools.shared.plan import make_plan
from data_tools.shared.renders import check_settings, write_object
from data_tools.verify import command as verify
from lgm.data.schema.sample import BrokenSample
from lgm.data.schema.surface import SURFACE_KEY, decode_surface
from lgm.data.sources.shards import ShardSource
from lgm.data.stream.batches import EvalStream
from lgm.data.views import HeldOutViews
from lgm.preparation.prepare import Preparation
from tests.unit.data_tools.test_data_tools_shards import rewrite

RADIUS = 0.5


def balls(plan):
    """Views of a ball about the origin, with one that stands inside it and is never seen."""
    size = plan.resolution
    focal = 0.5 * size / np.tan(np.radians(plan.fov_y_deg) / 2)
    axis = (np.arange(size) + 0.5 - size / 2) / focal
    rays = np.stack([*np.meshgrid(axis, axis), np.ones((size, size))], -1)
    for pose in plan.c2w:
        direction, center = rays @ pose[:3, :3].T, pose[:3, 3]
        a, b, c = (direction**2).sum(-1), direction @ center, center @ center - RADIUS**2
        hit = b**2 - a * c > 0
        depth = np.where(hit, (-b - np.sqrt(np.maximum(b**2 - a * c, 0))) / a, 0)
        normal = np.where(hit[..., None], (center + depth[..., None] * direction) / RADIUS, 0)
        image = np.full((size, size, 4), 200, np.uint8) * np.uint8(hit)[..., None]
        yield ViewPasses(image, depth.astype(np.float32), normal.astype(np.float32))


def saved(points, name="points"):
    held = io.BytesIO()
    np.savez_compressed(held, **{name: points})
    return held.getvalue()


def rendered(folder, surface_points=2000, geometry=False):
    plan = make_plan(resolution=64, num_views=24, surface_points=surface_points, geometry=geometry)
    check_settings(folder, {**plan.summary(), "engine": "none", "engine_version": "1"})
    for uid in ("one", "two"):
        sampler = SurfaceSampler(plan)
        write_object(folder, {"uid": uid}, plan, sampler.passing(balls(plan)), "png", None, sampler.points)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    renders = rendered(tmp_path_factory.mktemp("renders"))
    assert pack.main([str(renders), "--out", str(out), "--workers", "1", "--no-reprojection"]) == 0
    return out


def test_points_lie_on_the_surface_evenly_and_are_the_same_each_time(tmp_path):
    plan = make_plan(resolution=64, num_views=24, surface_points=2000)
    first, second = (SurfaceSampler(plan), SurfaceSampler(plan))
    images = list(first.passing(balls(plan)))
    assert len(images) == 24 and all(view.depth is None and view.normal is None for view in images)
    list(second.passing(balls(plan)))
    points = first.points()
    assert points.shape == (2000, 3) and np.array_equal(points, second.points())
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), RADIUS, atol=1e-5)
    # Equal bands of height have equal areas on a ball, and so have the octants.
    assert np.histogram(points[:, 1], 5, (-RADIUS, RADIUS))[0] == pytest.approx(400, rel=0.2)
    assert np.bincount((points > 0) @ [1, 2, 4]) == pytest.approx(250, rel=0.25)


def test_depth_is_written_only_where_it_is_asked_for(tmp_path):
    names = {path.name for path in (rendered(tmp_path / "a") / "one").iterdir()}
    assert SURFACE_KEY in names and not any("depth" in name for name in names)
    names = {path.name for path in (rendered(tmp_path / "b", geometry=True) / "one").iterdir()}
    assert {SURFACE_KEY, "depth_000.png", "normal_000.png"} <= names


def test_points_come_through_the_shard_to_the_batch(shards, capsys):
    assert verify.main([str(shards), "--workers", "1"]) == 0, capsys.readouterr()
    batch = next(iter(EvalStream(ShardSource(shards), HeldOutViews(4), batch_size=2, with_geometry=True)))
    batch = Preparation(32, 32)(batch)
    assert [points.shape for points in batch.surfaces] == [(2000, 3)] * 2
    np.testing.assert_allclose(batch.surfaces[0].norm(dim=-1), RADIUS, atol=5e-4)
    plain = next(iter(EvalStream(ShardSource(shards), HeldOutViews(4), batch_size=2)))
    assert plain.surfaces == (None, None)


def test_an_object_without_points_is_as_good_as_one_with(shards, capsys):
    rewrite(shards, lambda members: {k: v for k, v in members.items() if k != f"one.{SURFACE_KEY}"})
    assert verify.main([str(shards), "--workers", "1"]) == 0, capsys.readouterr()
    batch = next(iter(EvalStream(ShardSource(shards), HeldOutViews(4), batch_size=2, with_geometry=True)))
    assert [points is None for points in batch.surfaces] == [uid == "one" for uid in batch.uids]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"no zip", "surface.npz"),
        (saved(np.zeros((0, 3))), "shape (0, 3)"),
        (saved(np.zeros((5, 2))), "shape (5, 2)"),
        (saved(np.full((5, 3), np.nan)), "NaN or infinity"),
        (saved(np.zeros((5_000_000, 3))), "unpacks to"),
        (saved(np.zeros((5, 3)), "arr_0"), "no array named"),
        (saved(np.array(["a"], object)), "pickle"),
    ],
)
def test_a_broken_file_is_named(content, fault):
    with pytest.raises(BrokenSample, match=r"object 'a': surface.npz") as error:
        decode_surface(content, "a")
    assert fault in str(error.value) and "\n" not in str(error.value)


def test_a_number_of_points_without_sense_is_refused():
    with pytest.raises(ValueError, match="--surface-points -1"):
        make_plan(surface_points=-1)
