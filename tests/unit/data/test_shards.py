"""Shards and streams: what is read, what is broken, what is refused."""

import json
import logging
import shutil

import pytest
import torch
from torch.utils.data import DataLoader

from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.base import FirstObjects
from lgm.data.sources.broken import BrokenCounter
from lgm.data.sources.shards import ShardSource
from lgm.data.stream.batches import EvalStream, TrainStream
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.data.views import HeldOutViews, RandomViews
from tests.datasets import camera_json, sample_files, write_dataset, write_index, write_shard

VIEWS = RandomViews(4, 6)


def stream(dataset, **options) -> TrainStream:
    return TrainStream(ShardSource(dataset, "train"), VIEWS, **{"batch_size": 2, "seed": 0, **options})


def take(source, count: int, num_workers: int = 0) -> list:
    loader = iter(DataLoader(source, batch_size=None, num_workers=num_workers))
    return [next(loader) for _ in range(count)]


def test_batches_by_the_contract(dataset):
    (batch,) = take(stream(dataset), 1)
    assert batch.input.images.shape == (2, 4, 3, 32, 32)
    assert batch.target.alphas.shape == (2, 6, 1, 32, 32)
    assert batch.input.images.dtype == torch.uint8
    assert batch.target.cameras.shape == (2, 6)
    assert len(set(batch.uids)) == 2


def test_only_the_views_in_use_are_decoded(dataset, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "lgm.data.sources.shards.decode_rgba",
        lambda files, view_ids, *rest: decoded.append(list(view_ids)) or _decode(files, view_ids, *rest),
    )
    from lgm.data.schema.decode import decode_rgba as _decode

    take(stream(dataset), 1)
    assert [len(views) for views in decoded] == [6, 6]  # the 4 inputs are among the 6 targets


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_and_workers_never_overlap_within_a_pass(dataset, num_workers):
    seen = []
    for rank in range(2):
        consumers = max(1, num_workers)
        batches = take(
            stream(dataset, batch_size=1, rank=rank, world_size=2),
            6 // 2 // consumers * consumers,
            num_workers,
        )
        seen += [uid for batch in batches for uid in batch.uids]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resuming_gives_the_batches_that_were_to_come(dataset, num_workers):
    whole = take(stream(dataset), 7, num_workers)
    resumed = take(stream(dataset, start_batch=3), 4, num_workers)
    for before, after in zip(whole[3:], resumed, strict=True):
        assert before.uids == after.uids
        assert torch.equal(before.target.images, after.target.images)
        assert torch.equal(before.input.view_ids, after.input.view_ids)
        assert before.seeds == after.seeds


def test_what_is_drawn_for_an_object_depends_on_neither_rank_nor_worker_nor_batch(dataset):
    """In the first pass over the six objects, by whoever reads them: their views and their seeds."""

    def drawn(num_workers: int, world_size: int = 1, batch_size: int = 1) -> dict:
        found = {}
        for rank in range(world_size):
            count = 6 // world_size // batch_size
            options = {"rank": rank, "world_size": world_size, "batch_size": batch_size}
            for batch in take(stream(dataset, **options), count, num_workers):
                for i, uid in enumerate(batch.uids):
                    found[uid] = (batch.seeds[i], batch.target.view_ids[i].tolist())
        return found

    alone = drawn(num_workers=0)
    assert len(alone) == len({seed for seed, _ in alone.values()}) == 6
    for others in (drawn(2), drawn(0, world_size=2), drawn(0, batch_size=3)):
        assert others == alone


def test_every_pass_draws_anew(dataset):
    seeds = {uid: set() for uid in (f"object-{i:03d}" for i in range(6))}
    for batch in take(stream(dataset), 9):
        for uid, seed in zip(batch.uids, batch.seeds, strict=True):
            seeds[uid].add(seed)
    assert all(len(drawn) == 3 for drawn in seeds.values())


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (2, 0), (3, 2), (8, 1)])
def test_evaluation_reads_every_object_once(dataset, world_size, num_workers):
    source = ShardSource(dataset)
    seen = []
    for rank in range(world_size):
        loader = DataLoader(
            EvalStream(source, HeldOutViews(4), 2, rank, world_size), batch_size=None, num_workers=num_workers
        )
        seen += [uid for batch in loader for uid in batch.uids]
    assert sorted(seen) == [f"object-{i:03d}" for i in range(8)]


def test_evaluation_of_the_first_objects_alone(dataset):
    batches = list(EvalStream(ShardSource(dataset), HeldOutViews(4), 2, max_objects=3))
    assert [uid for batch in batches for uid in batch.uids] == [f"object-{i:03d}" for i in range(3)]


def test_training_on_the_first_object_alone(dataset):
    source = FirstObjects(ShardSource(dataset, "train"), 1)
    batches = take(TrainStream(source, VIEWS, 2, seed=0), 3)
    assert {uid for batch in batches for uid in batch.uids} == {"object-000"}


def test_splits_by_uid_and_no_splits_at_all(tmp_path, caplog):
    folder = write_dataset(tmp_path / "set", train=(4,), val=(2,))
    index = json.loads((folder / "index.json").read_text())
    index["splits"] = {"train": ["object-000", "object-003"], "val": ["object-005"]}
    (folder / "index.json").write_text(json.dumps(index))
    uids = [o.uid for o in _all(ShardSource(folder, "train"))]
    assert uids == ["object-000", "object-003"]
    assert [o.uid for o in _all(ShardSource(folder, "val"))] == ["object-005"]
    with pytest.raises(ValueError, match=r"split 'test' .* which has train, val"):
        ShardSource(folder, "test")

    del index["splits"]
    (folder / "index.json").write_text(json.dumps(index))
    with caplog.at_level(logging.WARNING):
        assert ShardSource(folder, "train").num_objects == 6
    assert "no splits" in caplog.text


def _all(source):
    """All objects, and what is broken as its error."""
    found = []
    for number in range(source.num_objects):
        try:
            found.append(source.load(*source.locate(number)))
        except BrokenSample as error:
            found.append(error)
    return found


# -- what is broken ----------------------------------------------------------------------------------


def broken_dataset(tmp_path, break_it, num_objects: int = 4):
    """A set whose object 1 was changed by `break_it(files)`."""
    folder = tmp_path / "broken"
    objects = [sample_files(f"object-{i}", i) for i in range(num_objects)]
    break_it(objects[1])
    shard = write_shard(folder / "all-000000.tar", objects)
    write_index(folder, [shard], {"train": [shard["name"]], "val": [shard["name"]]})
    return folder


def no_image(files):
    del files["object-1.view_005.png"]


def garbage_image(files):
    files["object-1.view_005.png"] = b"no image"


def garbage_first_image(files):
    files["object-1.view_000.png"] = b"no image"


def no_cameras(files):
    del files["object-1.cameras.json"]


def cameras_with(**changes):
    def change(files):
        files["object-1.cameras.json"] = json.dumps({**camera_json(), **changes}).encode()

    return change


def mirrored(files):
    content = camera_json()
    content["c2w"][6] = [-x if i % 4 == 0 else x for i, x in enumerate(content["c2w"][6])]
    files["object-1.cameras.json"] = json.dumps(content).encode()


FAULTS = [
    (no_image, "9 images but 10 cameras, view 5 is missing"),
    (no_cameras, "cameras.json is missing"),
    (mirrored, "view 6: .* is no rotation"),
    (cameras_with(c2w=[[2.0] * 16] * 10), "view 0: .* is no rotation"),
    (cameras_with(c2w=camera_json()["c2w"][:9]), "10 images but 9 cameras"),
    (cameras_with(c2w=[[1.0] * 12] * 10), "expected 16 numbers"),
    (cameras_with(convention="opengl"), "convention 'opengl'"),
    (cameras_with(version=7), "version 7"),
    (cameras_with(fov_y_deg=0), "fov_y_deg=0"),
    (cameras_with(canonical_inputs=[0, 99]), "canonical_inputs"),
    (cameras_with(canonical_inputs=[0, 0, 0, 0]), r"a view twice in canonical_inputs \(0, 0, 0, 0\)"),
    (cameras_with(canonical_inputs=[0, 1.5, 2, 3]), "lacks a readable .*canonical_inputs"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_faults_are_found_before_a_run_starts(tmp_path, fault, message):
    folder = broken_dataset(tmp_path, fault)
    with pytest.raises(ValueError, match=message) as caught:
        ShardSource(folder).check(probe=64)
    assert "object-1" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", [no_image, garbage_image, mirrored])
def test_during_a_run_a_broken_sample_is_skipped_counted_and_named(tmp_path, caplog, fault):
    folder = broken_dataset(tmp_path, fault)
    with caplog.at_level(logging.WARNING):
        batches = take(
            TrainStream(ShardSource(folder, "train"), RandomViews(4, 10), 2, 0, max_broken_fraction=0.5), 6
        )
    uids = {uid for batch in batches for uid in batch.uids}
    assert uids == {"object-0", "object-2", "object-3"}
    assert caplog.text.count("object 'object-1'") == 1


@pytest.mark.parametrize("fault", [mirrored, garbage_first_image])
def test_the_probe_before_a_run_allows_what_the_run_would(tmp_path, fault):
    folder = broken_dataset(tmp_path, fault)
    source = ShardSource(folder)
    assert len(source.check(64, max_broken_fraction=0.1)) == 3, "one of any set may be lost"
    with pytest.raises(
        ValueError, match=r"object-1.*; mend or repack the data set, or raise data.max_broken"
    ):
        source.check(64, max_broken_fraction=0.0)
    take(TrainStream(ShardSource(folder, "train"), RandomViews(4, 10), 2, 0, max_broken_fraction=0.1), 9)


def test_how_many_broken_objects_a_run_puts_up_with():
    for num_objects, fraction, most in (
        (20, 0.01, 1),
        (20, 0.1, 2),
        (20, 0.5, 10),
        (20, 0, 0),
        (100, 0.29, 29),
    ):
        counter = BrokenCounter(fraction, num_objects)
        for number in range(most):
            counter.bad(number, BrokenSample("x"))
        with pytest.raises(ValueError, match=f"{most + 1} of {most + 1} objects are broken"):
            counter.bad(most, BrokenSample("x"))
    large = BrokenCounter(0.01, 1_000_000)  # long before its ten thousandth
    with pytest.raises(ValueError, match="5 of 5 objects"):  # noqa: PT012
        for number in range(10):
            large.bad(number, BrokenSample("x"))


def test_an_object_that_shows_its_broken_view_later_counts(caplog):
    counter = BrokenCounter(0.1, 20)
    counter.good(3)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            counter.bad(3, BrokenSample("object 'x': view 5"))
            counter.good(3)
    assert (counter.seen, counter.broken) == (1, 1) and caplog.text.count("object 'x'") == 1


def test_where_the_probe_finds_nothing_good_there_is_no_run(tmp_path):
    files = {**sample_files("object-0", 0), "object-0.view_000.png": b"no image"}
    write_index(tmp_path, [write_shard(tmp_path / "all-000000.tar", [files])])
    with pytest.raises(ValueError, match="object-0"):
        ShardSource(tmp_path).check(64, max_broken_fraction=1.0)


def test_a_split_that_names_what_is_not_there(tmp_path):
    folder = write_dataset(tmp_path / "set")
    index = json.loads((folder / "index.json").read_text())
    index["splits"]["train"] = ["object-000", "nobody"]
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"names 1 shards or objects that are not there, e.g. 'nobody'"):
        ShardSource(folder, "train")


def test_too_many_broken_objects_stop_the_run(tmp_path):
    objects = [sample_files(f"object-{i}", i) for i in range(10)]
    for i in range(5):  # of ten objects, one is put up with
        objects[i][f"object-{i}.view_005.png"] = b"no image"
    shard = write_shard(tmp_path / "all-000000.tar", objects)
    write_index(tmp_path, [shard])
    broken = TrainStream(ShardSource(tmp_path), RandomViews(4, 10), 2, 0, max_broken_fraction=0.01)
    with pytest.raises(ValueError, match=r"2 of \d+ objects are broken, .*=0.01 allows; the last: object"):
        take(broken, 10)


def test_one_broken_object_stays_one_however_often_it_is_met(tmp_path, caplog):
    folder = broken_dataset(tmp_path, garbage_image)
    stream = TrainStream(ShardSource(folder, "train"), RandomViews(4, 10), 2, 0, max_broken_fraction=0.01)
    with caplog.at_level(logging.WARNING):
        take(stream, 200)
    assert caplog.text.count("object 'object-1'") == 1
    counter = BrokenCounter(0.01, 75)
    for _ in range(100):
        for number in range(75):
            (counter.bad(number, BrokenSample("x")) if number == 7 else counter.good(number))
    assert (counter.broken, counter.seen) == (1, 75)


def test_a_shard_of_broken_objects_is_replaced_by_the_others(tmp_path):
    folder = write_dataset(tmp_path / "set", train=(3, 3))
    (folder / "train-000000.tar").unlink()
    stream = TrainStream(ShardSource(folder, "train"), VIEWS, 1, 0, max_broken_fraction=1.0)
    uids = [uid for batch in take(stream, 6) for uid in batch.uids]
    assert sorted(set(uids)) == ["object-003", "object-004", "object-005"] and len(uids) == 6


def test_a_broken_samples_place_does_not_move_the_others(tmp_path):
    folder = broken_dataset(tmp_path, garbage_image)
    options = {"batch_size": 1, "seed": 3, "max_broken_fraction": 1.0}
    source, sampler = ShardSource(folder, "train"), RandomViews(4, 10)
    whole = take(TrainStream(source, sampler, **options), 9)
    resumed = take(TrainStream(source, sampler, **options, start_batch=5), 4)
    assert [b.uids for b in whole[5:]] == [b.uids for b in resumed]


def test_missing_and_cut_shards_are_found_before_a_run_starts(tmp_path):
    folder = write_dataset(tmp_path / "set")
    shard = folder / "train-000001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"train-000001.tar has \d+ bytes, index.json says \d+"):
        ShardSource(folder).check(1)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"train-000001.tar is missing"):
        ShardSource(folder).check(1)


def test_a_shard_cut_during_a_run_costs_its_lost_objects_alone(tmp_path, caplog):
    folder = write_dataset(tmp_path / "set", train=(6,))
    shard = folder / "train-000000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    source = ShardSource(folder, "train")
    objects = _all(source)
    assert len(objects) == 6
    broken = [o for o in objects if isinstance(o, BrokenSample)]
    assert 3 <= len(broken) < 6 and "train-000000.tar" in str(broken[-1])


def index_of(*changes: dict) -> str:
    entry = {"name": "a.tar", "samples": 1, "bytes": 2048, "sha256": "0" * 64}
    shards = [{**entry, **change} for change in changes]
    return json.dumps({"version": 1, "shards": shards})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "index.json cannot be read: Expecting property name"),
        ('{"version": 2}', "version 2"),
        ('{"version": 1, "shards": []}', "names no shard"),
        ('{"version": 1, "shards": [{"name": "a.tar"}]}', "samples, bytes and sha256"),
        (index_of({"samples": 0}), r"index.json gives shard 'a.tar' samples=0 .* must be positive"),
        (index_of({"samples": -3}), r"samples=-3 and bytes=2048, which must be positive; mend it"),
        (index_of({"samples": 1.5}), "samples, bytes and sha256"),
        (index_of({}, {}), "names the shard 'a.tar' twice"),
        (index_of({"name": "../E/a.tar"}), r"names the shard '../E/a.tar', expected a file beside it"),
        (index_of({"name": "E\\a.tar"}), "expected a file beside it"),
        (index_of({"name": ".."}), "expected a file beside it"),
    ],
)
def test_an_index_that_is_none(tmp_path, content, message):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        ShardSource(tmp_path)


def test_an_index_that_counts_other_objects_than_its_shards_hold(tmp_path, caplog):
    folder = write_dataset(tmp_path / "set")
    index = json.loads((folder / "index.json").read_text())
    for change, message in ((-1, "holds more objects than index.json says"), (1, "fewer objects than index")):
        shard = {**index["shards"][0], "samples": 3 + change}
        write_index(folder, [shard, *index["shards"][1:]], index["splits"])
        with pytest.raises(ValueError, match=rf"train-000000.tar.*{message}|{message}.*train-000000.tar"):
            ShardSource(folder, "train").check(64)
    caplog.clear()
    write_index(folder, [{**index["shards"][0], "samples": 2}, *index["shards"][1:]], index["splits"])
    source = ShardSource(folder, "train")  # where the probe did not reach so far: said once, in the run
    source.check(1)
    for ordinal in (0, 1, 1):
        source.load(0, ordinal)
    assert caplog.text.count("holds more objects than index.json says (2)") == 1
    source = ShardSource(folder, "val")
    assert len(source.check(64)) == 2


def test_a_folder_without_an_index(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no index.json; give a folder .* data=quickstart"):
        ShardSource(tmp_path)


def test_too_few_views_are_found_before_a_run_starts(dataset):
    module = ObjectDataModule(
        lambda split: ShardSource(dataset, split), RandomViews(4, 12), HeldOutViews(4), micro_batch_size=1
    )
    with pytest.raises(ValueError, match=r"has 10 views, 12 are needed .* resolution.num_target_views"):
        module.check("fit")


def test_images_that_cannot_be_decoded_are_found_before_a_run_starts(tmp_path):
    folder = broken_dataset(tmp_path, lambda files: files.update({"object-1.view_000.png": b"x"}))
    shutil.copy(folder / "all-000000.tar", tmp_path)
    module = ObjectDataModule(
        lambda split: ShardSource(folder, split), RandomViews(4, 6), HeldOutViews(4), micro_batch_size=1,
        max_broken_fraction=0.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"object-1.*view 0 cannot be decoded"):
        module.check("test")
