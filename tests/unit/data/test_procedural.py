"""Objects from a seed: pure, closed, outwards, centred; as a source, drawn here or on the device."""

import os
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from lgm.cameras.canonical import OBJECT_RADIUS
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.mixture import Mixture
from lgm.data.sources.procedural import booleans, lettering, make_object, profiles, shapes, tubes, uid_of
from lgm.data.sources.procedural import source as procedural_source
from lgm.data.sources.procedural.mixed import real_and_procedural
from lgm.data.sources.procedural.source import HELD_OUT, ProceduralSource
from lgm.data.sources.shards import ShardSource
from lgm.data.sources.synthetic import SyntheticSource
from lgm.data.stream.batches import EvalStream, TrainStream
from lgm.data.stream.undrawn import Undrawn
from lgm.data.views import HeldOutViews, RandomViews
from lgm.types import Batch

SEED = int(os.environ.get("TEST_SEED", "0"))
needs_manifold = pytest.mark.skipif(
    booleans.find_spec("manifold3d") is None,
    reason="manifold3d is missing; pip install 'lgm-training[procedural]'",
)
VIEWS = RandomViews(2, 3)


def source(**options) -> ProceduralSource:
    small = {"num_views": 6, "resolution": 24, "supersampling": 1, "booleans": False, "num_objects": 200}
    return ProceduralSource(**{"split": "train", **small, **options})


def directed_edges(solid) -> tuple[np.ndarray, np.ndarray]:
    """Of a surface's faces, by where their corners lie, as one number each; and the way back."""
    _, index = np.unique(np.round(solid.vertices, 7), axis=0, return_inverse=True)
    corners = index.reshape(-1)[solid.faces].astype(np.int64)
    start, end = corners.ravel(), corners[:, [1, 2, 0]].ravel()
    return start * len(solid.vertices) + end, end * len(solid.vertices) + start


@pytest.mark.parametrize("form", [*shapes.COMPACT, *shapes.HOLLOW])
def test_forms_are_closed_and_look_outwards(form):
    make = {**shapes.COMPACT, **shapes.HOLLOW}[form]
    for number in range(5):
        solid = make(np.random.default_rng([SEED, number]))
        assert solid.volume > 0
        forward, backward = directed_edges(solid)
        # Bars and joints of a frame are many closed surfaces; each edge has its other side all the same.
        assert np.isin(forward, backward).all(), (form, number)
        assert solid.uvs.min() >= 0 and solid.uvs.max() <= 1


def test_bars_are_as_thick_as_asked_for():
    nodes, edges = tubes.lattice(np.random.default_rng(3))
    solid = tubes.frame(nodes, edges, 0.02, 6, 1.0)
    assert 0.015 < np.abs(solid.vertices).max() - np.abs(nodes).max() <= 0.02


def test_outlines_can_be_seen_from_their_middle():
    for number in range(30):
        points, _ = profiles.outline(np.random.default_rng([SEED, number]))
        a, b = points[:-1], points[1:]
        turns = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
        assert (turns >= -1e-9).all() or (turns <= 1e-9).all()


@pytest.fixture(scope="module")
def objects():
    has_manifold = booleans.find_spec("manifold3d") is not None
    return [make_object(SEED, index, has_manifold) for index in range(16)]


def test_objects_are_whole_centred_and_of_one_size(objects):
    for mesh in objects:
        assert np.linalg.norm(mesh.positions, axis=1).max() == pytest.approx(OBJECT_RADIUS, abs=1e-5)
        np.testing.assert_allclose(mesh.positions.min(0), -mesh.positions.max(0), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-4)
        assert mesh.uvs.min() >= 0 and mesh.uvs.max() <= 1
        assert mesh.faces.min() >= 0 and mesh.faces.max() == len(mesh.positions) - 1
        assert set(mesh.skins) == set(range(len(mesh.textures)))
        assert all(texture.shape[0] in (128, 256) for texture in mesh.textures)
        assert len(mesh.faces) < 60_000


def test_normals_look_where_faces_do(objects):
    for mesh in objects:
        a, b, c = (mesh.positions[mesh.faces[:, k]] for k in range(3))
        planes = np.cross(b - a, c - a)
        agrees = np.einsum("fc,fc->f", planes, mesh.normals[mesh.faces].mean(1)) > 0
        area = np.linalg.norm(planes, axis=1)
        assert area[agrees].sum() > 0.98 * area.sum(), mesh.kind


def test_objects_differ_and_are_of_several_kinds(objects):
    assert len({mesh.kind for mesh in objects}) >= 5
    assert len({mesh.positions.tobytes() for mesh in objects}) == len(objects)
    colors = np.array(
        [np.mean([texture.mean((0, 1)) for texture in mesh.textures], axis=0) for mesh in objects]
    )
    assert colors.std(0).min() > 20


def test_an_object_is_a_pure_function_of_seed_and_index():
    first = make_object(5, 9, booleans=False)
    make_object(5, 10, booleans=False)
    again = make_object(5, 9, booleans=False)
    for name in ("positions", "normals", "uvs", "faces", "skins"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for one, other in zip(first.textures, again.textures, strict=True):
        np.testing.assert_array_equal(one, other)
    assert make_object(6, 9, booleans=False).positions.shape != first.positions.shape


@needs_manifold
def test_cuts_keep_both_textures_and_sharp_edges():
    rng = np.random.default_rng(0)
    cube, ball = shapes.COMPACT["box"](rng), shapes.COMPACT["ellipsoid"](rng)
    surface = booleans.combined("subtract", [cube, ball.moved(np.eye(3), [0.5, 0.5, 0.5])], [3, 7])
    assert set(surface.skins) == {3, 7}
    on_cube = surface.faces[surface.skins == 3]
    assert np.abs(surface.normals[on_cube]).max(-1).min() > 0.99  # the cube's faces stay flat
    assert booleans.combined("subtract", [cube, cube.moved(np.eye(3) * 2)], [0, 1]) is None


def test_without_manifold3d_it_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(booleans, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="manifold3d, which is missing") as error:
        source(booleans=True)
    assert "\n" not in str(error.value) and "data.booleans=false" in str(error.value)
    with pytest.raises(ValueError, match="manifold3d"):
        make_object(0, 0)
    assert source(booleans=False).load(0, 0).uid == uid_of(0, 0, booleans=False) != uid_of(0, 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", -1),
        ("num_objects", 0),
        ("num_views", 4),
        ("reuse", 0),
        ("resolution", 1.5),
        ("num_held_out", 0),
    ],
)
def test_options_that_cannot_be_are_refused(option, value):
    with pytest.raises(ValueError, match=f"data.{option}={value}"):
        source(**{option: value})


def test_other_splits_have_other_objects():
    held_out = source(split="val", num_held_out=70)
    assert held_out.shard_sizes == [64, 6]
    assert held_out.load(1, 2).uid == uid_of(0, HELD_OUT + 66, booleans=False)
    assert held_out.content_hash != source().content_hash != source(seed=1).content_hash


def test_each_object_is_used_as_often_as_asked_for_and_then_no_more():
    slots = list(islice(source(reuse=3).slots(1, 0, seed=0), 200 * 3))
    shards = [slot.part.shard for slot in slots]
    changes = sum(a != b for a, b in pairwise(shards))
    assert changes == 3  # 64, 64, 64 and 8 objects, each block three times in a row
    assert len({(slot.pass_index, slot.part, slot.rank) for slot in slots}) == len(slots)
    resumed = list(islice(source(reuse=3).slots(1, 0, seed=0, start=333), 20))
    assert resumed == slots[333:353]


def test_a_fault_of_the_generator_costs_an_object_and_not_the_run(monkeypatch):
    def faulty(seed, index, has_cuts):
        if index == 3:
            raise ZeroDivisionError("nothing is left")
        return make_object(seed, index, has_cuts)

    monkeypatch.setattr(procedural_source, "make_object", faulty)
    read = source()
    with pytest.raises(
        BrokenSample, match=r"object 'procedural1plain-0-0000003' cannot be made.*nothing is left"
    ):
        read.load(0, 3)
    assert read.load(0, 4).uid.endswith("4")


def test_uses_per_object_are_counted():
    assert source(reuse=4).num_distinct(80) == 20
    assert source(reuse=4).num_distinct(8000) == 200
    both = Mixture([source(reuse=4), SyntheticSource("train", num_objects=8)], [1, 3])
    assert both.num_distinct(400) == 25 + 8


def batches(read: ProceduralSource, count: int, start: int = 0) -> list:
    return list(islice(TrainStream(read, VIEWS, 2, seed=SEED, start_batch=start), count))


def test_a_resumed_stream_has_the_same_images():
    whole, resumed = batches(source(reuse=2), 3), batches(source(reuse=2), 1, start=2)
    for one, other in zip(whole[2:], resumed, strict=True):
        assert one.uids == other.uids
        assert torch.equal(one.input.images, other.input.images)
        assert torch.equal(one.target.alphas, other.target.alphas)


class Gpu:
    """What a run on one says of its device, without one."""

    type = "gpu"


def test_what_the_device_draws_is_what_the_loader_draws():
    drawn, undrawn = batches(source(), 1), batches(source().on_device(Gpu()), 1)
    for one, other in zip(drawn, undrawn, strict=True):
        assert isinstance(one, Batch) and isinstance(other, Undrawn)
        other = other.to("cpu", non_blocking=True)
        assert one.uids == other.uids and one.seeds == other.seeds
        for views, same in ((one.input, other.input), (one.target, other.target)):
            assert (views.images.int() - same.images).abs().max() <= 1
            assert (views.alphas.int() - same.alphas).abs().max() <= 1
            assert torch.equal(views.cameras.c2w, same.cameras.c2w)


def test_drawn_and_decoded_objects_share_a_batch():
    decoded = SyntheticSource("train", num_objects=8, num_views=6, resolution=24)
    mixed = Mixture([source(), decoded], [1, 1])
    (batch,) = islice(TrainStream(mixed.on_device(Gpu()), VIEWS, 4, seed=SEED), 1)
    (expected,) = islice(TrainStream(mixed, VIEWS, 4, seed=SEED), 1)
    batch = batch.to("cpu")
    assert batch.uids == expected.uids and len({uid.split("-")[0] for uid in batch.uids}) == 2
    assert (batch.target.images.int() - expected.target.images).abs().max() <= 1


def test_images_of_other_sizes_do_not_share_a_batch():
    decoded = SyntheticSource("train", num_objects=8, num_views=6, resolution=32)
    mixed = Mixture([source(), decoded], [1, 1]).on_device(Gpu())
    with pytest.raises(ValueError, match=r"images of \(32, 32\).*data.resolution=32"):
        next(iter(TrainStream(mixed, VIEWS, 4, seed=SEED)))


def test_evaluation_reads_depth_where_there_is_alpha():
    read = source(split="val", num_held_out=2, resolution=32)
    (batch,) = EvalStream(read, HeldOutViews(4), batch_size=2, with_geometry=True)
    depths, alphas = batch.target.depths, batch.target.alphas
    assert depths.shape == alphas.shape
    covered = alphas > 250
    assert ((depths[covered] > 0.85) & (depths[covered] < 2.15)).float().mean() > 0.99
    assert (depths[alphas == 0] == 0).float().mean() > 0.99


def test_every_character_is_its_own():
    glyphs = [lettering.word(letter).tobytes() for letter in lettering.CHARACTERS]
    assert len(set(glyphs)) == 36
    ink = lettering.ink(lettering.word("I"), np.array([0.5, 0.5, -1.0]), np.array([0.5, 0.5, 0.5]))
    np.testing.assert_allclose(ink, [1, 1, 0])


MIXED = {"num_views": 6, "supersampling": 1, "booleans": False, "num_objects": 64}


def test_real_and_procedural_objects_are_mixed_in_a_ratio(dataset):
    mixed = real_and_procedural({"path": dataset}, MIXED, [3, 1], "train")
    assert [round(share, 3) for share in mixed.shares] == [0.75, 0.25]
    real = ShardSource(dataset, "train")
    number = real.num_objects
    shard, ordinal = mixed.in_shards(number)
    made = mixed.load(shard, ordinal)
    assert made.uid == uid_of(0, 0, booleans=False)
    assert made.decode([0]).shape == real.load(0, 0).decode([0]).shape
    assert isinstance(real_and_procedural({"path": dataset}, MIXED, [3, 1], "val"), ShardSource)
    assert isinstance(real_and_procedural({"path": dataset}, MIXED, [1, 0], "train"), ShardSource)
    assert isinstance(real_and_procedural({"path": dataset}, MIXED, [0, 1], "train"), ProceduralSource)


@pytest.mark.parametrize("ratio", [[1], [0, 0], [1, -1], [1, "2"], [1, float("inf")], [1e6, 1]])
def test_a_ratio_that_cannot_be_is_refused(dataset, ratio):
    with pytest.raises(ValueError, match=r"data\.ratio=\["):
        real_and_procedural({"path": dataset}, MIXED, ratio, "train")


@pytest.mark.parametrize("form", [*shapes.COMPACT, *shapes.HOLLOW])
def test_no_side_shows_its_texture_mirrored(form):
    solid = {**shapes.COMPACT, **shapes.HOLLOW}[form](np.random.default_rng(SEED))
    a, b, c = (solid.uvs[solid.faces[:, k]] for k in range(3))
    ab, ac = b - a, c - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]  # v runs down: negative for counter-clockwise faces
    assert -area[area < 0].sum() > 0.97 * np.abs(area).sum()
