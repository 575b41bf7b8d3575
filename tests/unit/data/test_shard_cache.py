"""The cache of shards near its smallest size: what readers have in hand or asked for ahead stays, so that
each shard is fetched about once a pass."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tarfile
import time
from itertools import count, islice
from pathlib import Path

import pytest

from lgm.data.order import slots
from lgm.data.schema.sample import ShardInfo
from lgm.data.transport import shard_files
from lgm.data.transport.claims import Claims
from lgm.data.transport.shard_files import UrlFiles
from lgm.files import file_sha256
from tests.clock import wait_until
from tests.forked import Forked


class Now:
    """A thread that does its work when it is started, so that a test knows the order of things."""

    def __init__(self, target, args, daemon) -> None:
        self._run = lambda: target(*args)

    def start(self) -> None:
        self._run()


@pytest.fixture
def shards(tmp_path, monkeypatch) -> tuple[list[ShardInfo], list[str]]:
    """Shards of one size behind a URL, and the names of those that were fetched."""
    fetched: list[str] = []
    infos = []
    for number in range(24):
        path = tmp_path / "set" / f"train-{number:06d}.tar"
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w") as tar:
            content = json.dumps(number).encode()
            info = tarfile.TarInfo(f"o{number}.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        infos.append(ShardInfo(path.name, 10, path.stat().st_size, file_sha256(path)))

    def fetch(url: str, file, *sizes) -> None:
        fetched.append(url.rpartition("/")[2])
        with (tmp_path / "set" / fetched[-1]).open("rb") as source:
            shutil.copyfileobj(source, file)
        file.flush()
        touch(file.fileno())

    monkeypatch.setattr(shard_files, "fetch", fetch)
    monkeypatch.setattr(shard_files.threading, "Thread", Now)
    # The order of uses, not the clock of a disk, says what was used last.
    utime, clock = os.utime, count(time.time_ns(), 1000)

    def touch(descriptor: int) -> None:
        utime(descriptor, ns=(next(clock),) * 2)

    monkeypatch.setattr(shard_files.os, "utime", touch)
    return infos, fetched


def run_readers(infos, cache: Path, num_readers: int, num_passes: int, cache_shards: float) -> None:
    """Readers of one machine in turn, an object each, as batches are made; each has a source of its own."""
    sizes = [info.samples for info in infos]
    readers = [
        UrlFiles("http://host/set", cache, int(cache_shards * infos[0].bytes)) for _ in range(num_readers)
    ]
    streams = [slots(sizes, num_readers, consumer, 0) for consumer in range(num_readers)]
    in_hand: list[object] = [None] * num_readers
    for _ in range(num_passes * sum(sizes) // num_readers):
        for reader, files in enumerate(readers):
            slot = next(streams[reader])
            if slot.part != in_hand[reader]:
                in_hand[reader] = slot.part
                files.prefetch(infos[slot.next_part.shard])
            for _ in range(2):  # the cameras, and the images
                files.open(infos[slot.part.shard]).close()


@pytest.mark.parametrize("num_readers", [2, 5, 8])
def test_at_its_smallest_size_a_shard_is_fetched_once_a_pass(shards, tmp_path, num_readers):
    infos, fetched = shards
    run_readers(infos, tmp_path / "cache", num_readers, 3, 2 * num_readers)
    # What is in the cache at a pass's end may be read from there in the next.
    assert len(fetched) <= 3 * len(infos) + num_readers
    assert (
        sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar"))
        <= 2 * num_readers * infos[0].bytes
    )


def test_what_nobody_claims_was_fetched_far_more_often(shards, tmp_path, monkeypatch):
    """What the fewer fetches come from."""
    infos, fetched = shards
    monkeypatch.setattr(Claims, "is_claimed", lambda *arguments: False)
    run_readers(infos, tmp_path / "cache", 8, 3, 16)
    assert len(fetched) > 3 * len(infos) + 8


def test_a_cache_that_holds_all_fetches_each_once(shards, tmp_path):
    infos, fetched = shards
    run_readers(infos, tmp_path / "cache", 4, 3, len(infos))
    assert sorted(fetched) == [info.name for info in infos]


def test_too_small_a_cache_for_what_is_claimed_still_goes_on(shards, tmp_path):
    infos, fetched = shards
    run_readers(infos, tmp_path / "cache", 4, 1, 2)
    assert len(list((tmp_path / "cache").glob("*.tar"))) <= 2 and len(fetched) >= len(infos)


def test_claims_end_with_their_process(tmp_path):
    """Also of one that is killed; and a fork takes none along."""
    claims = Claims(tmp_path)

    def hold() -> None:
        Claims(tmp_path).hold(["a"])
        (tmp_path / "held").touch()
        signal.pause()

    process = Forked(hold)
    try:
        wait_until((tmp_path / "held").exists, process)
        assert claims.is_claimed("a") and not claims.is_claimed("b")
        claims.hold(["a", "b"])
    finally:
        process.kill()
    process.wait()
    assert claims.is_claimed("a") and claims.is_claimed("b")
    claims.hold(["b"])
    assert not claims.is_claimed("a")
    other = Claims(tmp_path)
    other.hold(["b"])
    claims.hold([])
    assert claims.is_claimed("b"), "another reader of this process has it"
    other.hold([])
    assert not claims.is_claimed("b")


def test_two_shards_are_fetched_at_the_same_time(shards, tmp_path, monkeypatch):
    """A lock a shard: shards whose checksums begin alike do not wait for each other."""
    infos, _ = shards
    a, b = (ShardInfo(info.name, 10, info.bytes, "ab" + info.sha256[2:]) for info in islice(infos, 2))
    files = UrlFiles("http://host/set", tmp_path / "cache", 10**9)
    monkeypatch.setattr(shard_files, "_check_content", lambda *arguments: None)
    fetch, nested = shard_files.fetch, []

    def fetch_both(url: str, file, *sizes) -> None:
        if not nested:
            nested.append(url)
            files.open(b).close()  # would wait for ever for a lock that is held here
        fetch(url, file, *sizes)

    monkeypatch.setattr(shard_files, "fetch", fetch_both)
    files.open(a).close()
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 2
