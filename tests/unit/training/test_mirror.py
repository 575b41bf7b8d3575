"""A mirror of checkpoints in an S3 store of its own (moto's)."""

import os
import threading

import pytest
import torch

from lgm.training import mirror as module
from lgm.training.checkpoint_io import AsyncCheckpointIO
from lgm.training.mirror import Mirror
from tests.clock import GIVE_UP_S
from tests.stores import environment_of, s3_store


@pytest.fixture(scope="module")
def store():
    with s3_store() as store:
        yield store


@pytest.fixture
def bucket(store, monkeypatch, tmp_path):
    """The client of an empty bucket."""
    url, client = store
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment_of(url, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    for entry in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=entry["Key"])
    return client


def steps_in(client, tmp_path):
    steps = {}
    for entry in client.list_objects_v2(Bucket="bucket", Prefix="runs/a/").get("Contents", []):
        path = tmp_path / "fetched.ckpt"
        path.write_bytes(client.get_object(Bucket="bucket", Key=entry["Key"])["Body"].read())
        steps[entry["Key"].removeprefix("runs/a/")] = torch.load(path, weights_only=True)["global_step"]
    return steps


def saved(io, path, step):
    io.save_checkpoint({"global_step": step, "state_dict": {"w": torch.full((300, 300), float(step))}}, path)
    io.wait()


@pytest.mark.parametrize("part_bytes", [64 << 20, 5 << 20])
def test_retention_is_the_local_one(bucket, tmp_path, monkeypatch, part_bytes):
    monkeypatch.setattr(module, "_PART_BYTES", part_bytes)
    io = AsyncCheckpointIO(Mirror("s3://bucket/runs/a/"))
    last = tmp_path / "checkpoints" / "last.ckpt"
    io.retain(last, previous=2, every_n_steps=10)
    for step in (4, 8, 12, 16):
        saved(io, last, step)
    saved(io, tmp_path / "checkpoints" / "best.ckpt", 16)
    io.teardown()
    local = {path.name: torch.load(path, weights_only=True)["global_step"] for path in last.parent.iterdir()}
    assert steps_in(bucket, tmp_path) == local
    assert local == {
        "last.ckpt": 16, "previous.ckpt": 12, "previous_2.ckpt": 8, "step_00000012.ckpt": 12, "best.ckpt": 16,
    }  # fmt: skip
    fewer = AsyncCheckpointIO(Mirror("s3://bucket/runs/a"))
    fewer.retain(last, previous=1)
    saved(fewer, last, 20)
    fewer.teardown()
    assert "previous_2.ckpt" not in steps_in(bucket, tmp_path)


def test_large_files_go_in_parts_and_are_copied_in_parts(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PART_BYTES", 5 << 20)
    monkeypatch.setattr(module, "_COPY_PART_BYTES", 5 << 20)
    mirror, path = Mirror("s3://bucket/runs/a"), tmp_path / "last.ckpt"
    for seed in (1, 2):
        path.write_bytes(os.urandom(1) * ((11 << 20) + seed))
        mirror.push(path, num_previous=1)
        mirror.wait()
    assert mirror.names() == ["last.ckpt", "previous.ckpt"]
    mirror.fetch("last.ckpt", tmp_path / "again.ckpt")
    assert (tmp_path / "again.ckpt").read_bytes() == path.read_bytes()
    mirror.fetch("previous.ckpt", tmp_path / "again.ckpt")
    assert (tmp_path / "again.ckpt").stat().st_size == (11 << 20) + 1
    assert not bucket.list_multipart_uploads(Bucket="bucket").get("Uploads")


def test_no_save_waits_for_an_upload_and_the_newest_is_uploaded(bucket, tmp_path, monkeypatch):
    gate, begun, original = threading.Event(), threading.Event(), Mirror._put

    def put(self, key, file):
        begun.set()
        assert gate.wait(GIVE_UP_S)
        original(self, key, file)

    monkeypatch.setattr(Mirror, "_put", put)
    io, last = AsyncCheckpointIO(Mirror("s3://bucket/runs/a")), tmp_path / "last.ckpt"
    for step in (1, 2, 3, 4):
        io.save_checkpoint({"global_step": step}, last)
        io._wait_for_writes()
        assert begun.wait(GIVE_UP_S)
    assert torch.load(last, weights_only=True)["global_step"] == 4
    gate.set()
    io.wait()
    assert steps_in(bucket, tmp_path) == {"last.ckpt": 4}
    io.teardown()


@pytest.mark.parametrize("part_bytes", [64 << 20, 5 << 20])
def test_an_upload_that_fails_costs_a_warning_and_leaves_the_one_before(
    bucket, tmp_path, monkeypatch, caplog, part_bytes
):
    monkeypatch.setattr(module, "_PART_BYTES", part_bytes)
    mirror, path = Mirror("s3://bucket/runs/a"), tmp_path / "last.ckpt"
    path.write_bytes(b"one" * (4 << 20))
    mirror.push(path, num_previous=1)
    mirror.wait()
    client = mirror._client()

    def broken(*args, **kwargs):
        raise OSError("the line is cut by own-secret-of-this-test")

    with monkeypatch.context() as patch:
        patch.setattr(client, "put_object" if part_bytes > 12 << 20 else "upload_part", broken)
        path.write_bytes(b"two" * (4 << 20))
        mirror.push(path, num_previous=1)
        mirror.wait()
    assert (
        "s3://bucket/runs/a/last.ckpt is not written: the line is cut by ***; training goes on" in caplog.text
    )
    mirror.fetch("last.ckpt", tmp_path / "again.ckpt")
    assert (tmp_path / "again.ckpt").read_bytes().startswith(b"oneone")
    assert not bucket.list_multipart_uploads(Bucket="bucket").get("Uploads")


def test_what_a_killed_upload_has_left_is_ended_by_the_next(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PART_BYTES", 5 << 20)
    key = "runs/a/last.ckpt"
    left = bucket.create_multipart_upload(Bucket="bucket", Key=key)["UploadId"]
    bucket.upload_part(Bucket="bucket", Key=key, UploadId=left, PartNumber=1, Body=b"x" * (5 << 20))
    mirror, path = Mirror("s3://bucket/runs/a"), tmp_path / "last.ckpt"
    assert mirror.names() == []  # half an object is none
    path.write_bytes(b"y" * (6 << 20))
    mirror.push(path)
    mirror.wait()
    assert mirror.names() == ["last.ckpt"]
    assert not bucket.list_multipart_uploads(Bucket="bucket").get("Uploads")


@pytest.mark.parametrize("url", ["/tmp/x", "s3://bucket", "s3://own:secret@bucket/x", "http://host/x"])
def test_other_places_are_refused_in_one_line(url):
    with pytest.raises(ValueError, match=r"checkpoints.mirror=.* is not s3://") as error:
        Mirror(url)
    assert "own:secret" not in str(error.value)


def test_a_store_that_cannot_be_asked_is_one_line(bucket):
    with pytest.raises(
        ValueError, match=r"checkpoints.mirror=s3://nobody/x cannot be read: .*checkpoints.mirror=null"
    ):
        Mirror("s3://nobody/x").names()
