"""Data sets behind URLs: servers that stumble, a cache that stays small."""

import http.server
import multiprocessing
import os
import re
import threading
from pathlib import Path

import pytest
import torch

from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.shards import ShardSource
from lgm.data.stream.batches import TrainStream
from lgm.data.transport import shard_files, urls
from lgm.data.views import RandomViews
from tests.clock import wait_until
from tests.datasets import write_dataset
from tests.patience import hurried_by
from tests.web_server import nowhere

ANY = 10**9


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a folder as the server's `mood` says, and notes what was asked for."""

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        mood = server.moods.pop(0) if server.moods else "well"
        path = Path(server.folder) / self.path.lstrip("/")
        if mood.isdigit() or not path.is_file():
            return self.send_error(int(mood) if mood.isdigit() else 404)
        if mood == "silent":
            server.closing.wait()
            return None
        content, start = path.read_bytes(), 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and server.has_range:
            start = int(asked.group(1))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        content = content[start:]
        self.wfile.write(content[: len(content) // 3] if mood == "cut" else content)
        return None

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(dataset, monkeypatch):
    monkeypatch.setattr(urls, "_PAUSES_S", (0.01, 0.01))
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    served.folder, served.moods, served.requests, served.has_range = dataset, [], [], True
    served.url, served.closing = f"http://127.0.0.1:{served.server_port}", threading.Event()
    hurried_by(monkeypatch, lambda url: served.moods[:1] == ["silent"])
    threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    yield served
    served.closing.set()
    served.shutdown()
    served.server_close()


def batches(source: ShardSource, count: int = 4) -> list:
    stream = iter(TrainStream(source, RandomViews(4, 6), 2, seed=0))
    return [next(stream) for _ in range(count)]


def test_what_comes_over_http_is_what_lies_on_the_disk(server, dataset, tmp_path):
    far = ShardSource(server.url + "/", "train", tmp_path, ANY)
    assert len(far.check(64)) == 6
    for there, here in zip(batches(far), batches(ShardSource(dataset, "train")), strict=True):
        assert there.uids == here.uids and torch.equal(there.target.images, here.target.images)
    assert len(server.requests) == 3  # the index and each shard once
    ShardSource(server.url, "train", tmp_path, ANY).check(64)
    assert len(server.requests) == 4  # of what is in the cache already, the index alone


@pytest.mark.parametrize("has_range", [True, False])
@pytest.mark.parametrize("mood", ["500", "503", "cut", "silent"])
def test_a_server_that_stumbles_is_asked_again(server, tmp_path, mood, has_range, caplog):
    server.has_range = has_range
    source = ShardSource(server.url, "train", tmp_path, ANY)
    server.moods = [mood, mood]
    source.load(0, 2).decode([1])
    assert len(server.requests) == 4 and caplog.text.count("again in") == 2
    ranges = [asked for _, asked in server.requests[2:]]
    assert all(ranges) if mood == "cut" else not any(ranges)


def test_a_server_that_refuses(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data.path=.*/nowhere: .*index.json: HTTP 404 Not Found"):
        ShardSource(server.url + "/nowhere", None, tmp_path, ANY)
    assert len(server.requests) == 1
    source = ShardSource(server.url, "train", tmp_path, ANY)
    server.moods = ["404"]
    with pytest.raises(BrokenSample, match=r"train-000000.tar: HTTP 404"):
        source.load(0, 0)
    server.moods = ["500"] * 3
    with pytest.raises(BrokenSample, match=r"HTTP 500 .*, 3 times in a row"):
        source.load(1, 0)
    asked = len(server.requests)
    with pytest.raises(BrokenSample, match="3 times in a row"):
        source.load(1, 1)
    assert len(server.requests) == asked  # patience is spent on a shard once
    with (
        nowhere() as url,
        pytest.raises(FileNotFoundError, match=r"data.path=.*refused, 3 times in a row"),
    ):
        ShardSource(url, None, tmp_path, ANY)


def test_a_shard_that_is_another_than_the_index_says(server, tmp_path):
    folder = write_dataset(tmp_path / "set")
    server.folder = folder
    source = ShardSource(server.url, "train", tmp_path / "cache", ANY)
    shard = folder / "train-000000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:3000] + b"x" + content[3001:])
    with pytest.raises(BrokenSample, match=r"its sha256 is not the one in index.json"):
        source.load(0, 0)
    shard.write_bytes(content[:-1024])
    with pytest.raises(BrokenSample, match=r"has \d+ bytes, index.json says \d+"):
        ShardSource(server.url, "train", tmp_path / "cache", ANY).load(0, 0)
    assert not list((tmp_path / "cache").glob("*.tar*"))


def test_the_cache_keeps_its_size_and_forgets_the_longest_unused(server, tmp_path):
    folder = write_dataset(tmp_path / "set", train=(2, 2, 2, 2))
    server.folder, cache = folder, tmp_path / "cache"
    size = (folder / "train-000000.tar").stat().st_size
    source = ShardSource(server.url, "train", cache, 2.5 * size)

    def cached() -> set[str]:
        return {path.name.split("-")[-1] for path in cache.glob("*.tar")}

    def clock_of_the_disk_goes_on() -> None:
        latest, probe = max(path.stat().st_mtime_ns for path in cache.glob("*.tar")), tmp_path / "probe"
        wait_until(lambda: probe.touch() or probe.stat().st_mtime_ns > latest, poll_s=0.001)

    for shard, expected in ((0, {0}), (1, {0, 1}), (0, {0, 1}), (2, {0, 2}), (3, {2, 3})):
        held = source.load(shard, 0)
        assert cached() == {f"{i:06d}.tar" for i in expected}
        clock_of_the_disk_goes_on()
    (cache / "0123-lost.tar.99999.partial").write_bytes(b"")
    os.utime(cache / "0123-lost.tar.99999.partial", (1, 1))
    source.load(0, 0)
    assert not list(cache.glob("*.partial"))  # what a process left that died
    source.load(1, 0)
    assert held.decode([0]).shape == (1, 32, 32, 4)  # an object whose shard has gone meanwhile

    with pytest.raises(ValueError, match=r"data.cache_bytes=\d+ is too little for 2 loader processes"):
        source.check(1, num_readers=2)


def read_all(url: str, cache: Path) -> None:
    source = ShardSource(url, "train", cache, ANY)
    for number in range(source.num_objects):
        source.load(*source.locate(number)).decode([0])


def test_processes_share_one_copy(server, tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=read_all, args=(server.url, tmp_path)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    shards = [path for path, _ in server.requests if path.endswith(".tar")]
    assert sorted(shards) == ["/train-000000.tar", "/train-000001.tar"]


def test_the_next_shard_is_fetched_ahead(server, tmp_path):
    source = ShardSource(server.url, "train", tmp_path, ANY)
    batches(source, 1)
    wait_until(lambda: len(list(tmp_path.glob("*.tar"))) == 2)


def assert_fetched_ahead(source: ShardSource, cache: Path) -> None:
    source.prefetch(0)
    wait_until(lambda: not source.files._ahead)
    assert len(list(cache.glob("*.tar"))) == 1


def test_a_shard_that_failed_once_is_fetched_ahead_again(server, tmp_path, monkeypatch):
    source = ShardSource(server.url, "train", tmp_path, ANY)
    server.moods = ["404"]
    with pytest.raises(BrokenSample, match="HTTP 404"):
        source.load(0, 0)
    asked = len(server.requests)
    source.prefetch(0)
    assert len(server.requests) == asked  # not at once: the server had its chance
    with monkeypatch.context() as patch:
        patch.setattr(shard_files, "_FORGET_S", 0.0)
        assert_fetched_ahead(source, tmp_path)
    # Fetched in the end, it counts as failed no more: what made room is fetched ahead as any other.
    source.load(0, 0)
    for path in tmp_path.glob("*.tar"):
        path.unlink()
    assert_fetched_ahead(source, tmp_path)


def test_commands_and_other_schemes(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(urls, "_PAUSES_S", ())
    assert len(ShardSource(f"pipe:cat {dataset}/{{}}", "val", tmp_path, ANY).check(9)) == 2
    with pytest.raises(ValueError, match="does not say where the file's name goes"):
        ShardSource("pipe:cat /data/set", None, tmp_path, ANY)
    with pytest.raises(FileNotFoundError, match=r"data.path=pipe:no-such-program"):
        ShardSource("pipe:no-such-program {} 2>/dev/null", None, tmp_path, ANY)
    with pytest.raises(FileNotFoundError, match=r"odd://a/index.json cannot be opened"):
        ShardSource("odd://a", None, tmp_path, ANY)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="needs the program 'gsutil', which is not installed"):
        ShardSource("gs://bucket/set", None, tmp_path, ANY)


def test_a_folder_needs_no_cache(dataset):
    assert isinstance(shard_files.shard_files(str(dataset), None, 0), shard_files.LocalFiles)
