"""Decoded sets give the batches that shards give, bit for bit."""

import subprocess
import sys
import threading
import time
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from lgm.cli.build import build_datamodule
from lgm.data.sources.cache import DeviceCache, MemoryCache, NoCache
from lgm.data.sources.mixture import mixture_of_shards
from lgm.data.sources.shards import ShardSource
from lgm.data.stream.batches import TrainStream
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.data.stream.in_process import ahead
from lgm.data.views import HeldOutViews, RandomViews
from tests.clock import wait_until
from tests.datasets import sample_files, write_index, write_shard
from tests.unit.cli.test_configs import composed, names

CPU = torch.device("cpu")
ANY = 1e9


def module(folder, cache, num_workers=0, step=0, **options) -> ObjectDataModule:
    made = ObjectDataModule(
        lambda split: ShardSource(folder, split),
        RandomViews(4, 6),
        HeldOutViews(4),
        **{"micro_batch_size": 2, "num_workers": num_workers, "cache": cache, **options},
    )
    made.trainer = SimpleNamespace(
        global_rank=0, world_size=1, global_step=step, strategy=SimpleNamespace(root_device=CPU)
    )
    return made


def batches(made: ObjectDataModule, count: int = 9) -> list:
    return list(islice(made.train_dataloader(), count))


def assert_same(ours: list, theirs: list) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.uids == b.uids
        for x, y in ((a.input, b.input), (a.target, b.target)):
            assert torch.equal(x.images, y.images) and torch.equal(x.alphas, y.alphas)
            assert torch.equal(x.view_ids, y.view_ids)
            assert torch.equal(x.cameras.c2w, y.cameras.c2w) and torch.equal(
                x.cameras.K_norm, y.cameras.K_norm
            )
            assert x.images.is_contiguous() == y.images.is_contiguous()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache", [MemoryCache(ANY), DeviceCache(ANY)])
def test_cached_batches_are_the_same_and_resume_alike(dataset, cache, num_workers):
    expected = batches(module(dataset, NoCache(), num_workers))
    made = module(dataset, cache, num_workers)
    made.check("fit")
    assert_same(batches(made), expected)
    assert_same(batches(module(dataset, cache, num_workers, step=5), 4), expected[5:])
    assert_same(
        batches(module(dataset, cache, num_workers, max_train_objects=2), 4),
        batches(module(dataset, NoCache(), num_workers, max_train_objects=2), 4),
    )


def test_images_are_decoded_once_and_shared(dataset, monkeypatch):
    decoded = []
    from lgm.data.sources import shards

    decode = shards.decode_rgba
    monkeypatch.setattr(shards, "decode_rgba", lambda *a: decoded.append(a[2]) or decode(*a))
    source = MemoryCache(ANY).wrap(ShardSource(dataset, "train"), CPU, 0)
    before = len(decoded)
    stream = DataLoader(TrainStream(source, RandomViews(4, 6), 2, seed=0), batch_size=None)
    list(islice(stream, 20))
    assert len(decoded) == before == 6 + 1  # each object once, and one image for the size
    rgba, rows = source.load(1, 2).images([3, 0])
    assert rgba.is_shared() and rows == [53, 50] and rgba.shape == (60, 32, 32, 4)


def test_broken_views_spoil_what_they_spoil_without_a_cache(tmp_path):
    objects = [sample_files(f"object-{i}", i) for i in range(5)]
    objects[1]["object-1.view_005.png"] = b"no image"
    del objects[3]["object-3.view_002.png"]
    objects[4] = {k: b"x" if "view" in k else v for k, v in objects[4].items()}
    shard = write_shard(tmp_path / "all.tar", objects)
    write_index(tmp_path, [shard], {"train": [shard["name"]]})
    options = {"max_broken_fraction": 1.0}
    expected = batches(module(tmp_path, NoCache(), **options), 20)
    assert any("object-1" in batch.uids for batch in expected)  # where the view is not among those drawn
    assert_same(batches(module(tmp_path, DeviceCache(ANY), **options), 20), expected)


def test_a_mixture_stays_a_mixture(dataset):
    source = mixture_of_shards([{"path": dataset, "weight": 3}, {"path": dataset}], "train")

    def drawn(read):
        return list(islice(TrainStream(read, RandomViews(4, 6), 2, seed=0), 12))

    assert_same(drawn(DeviceCache(ANY).wrap(source, CPU, 0)), drawn(source))


def test_what_does_not_fit_is_refused_at_the_start(dataset, monkeypatch):
    needed = 6 * 10 * 32 * 32 * 4
    for cache, name in ((MemoryCache(needed - 1), "memory"), (DeviceCache(needed - 1), "device")):
        with pytest.raises(
            ValueError, match=rf"data/cache={name}: 6 objects × 10 views of 32 × 32 take .* GB"
        ) as e:
            module(dataset, cache).check("fit")
        assert "data.cache.max_bytes allows; use data/cache=none" in str(e.value)
    module(dataset, MemoryCache(needed)).check("fit")
    with pytest.raises(ValueError, match=r"2 times, and .* data.cache.max_bytes allows"):
        module(dataset, MemoryCache(needed)).check("fit", num_devices=2)
    monkeypatch.setattr("lgm.data.sources.cache._free_shared_memory", lambda: 1000.0)
    with pytest.raises(ValueError, match=r"are free in /dev/shm \(docker: --shm-size\); use data/cache=none"):
        module(dataset, MemoryCache(needed)).check("fit")


def test_a_device_that_is_the_cpu_has_no_more_memory_than_is_free(dataset, monkeypatch):
    monkeypatch.setattr("lgm.data.sources.cache._free_memory", lambda: 1000.0)
    with pytest.raises(ValueError, match=r"data/cache=device: .* GB, and 1e-06 GB are free on cpu"):  # noqa: PT012
        source = DeviceCache(ANY).wrap(ShardSource(dataset, "train"), CPU, 0)
        list(islice(TrainStream(source, RandomViews(4, 6), 2, seed=0), 1))


def test_images_of_two_sizes_are_refused(tmp_path):
    objects = [sample_files("a", 0, size=32), sample_files("b", 1, size=64)]
    write_index(tmp_path, [write_shard(tmp_path / "all.tar", objects)])
    with pytest.raises(
        ValueError, match="object 'b' has 64 × 64, others 32 × 32; pack them at one --resolution"
    ):
        DeviceCache(ANY).wrap(ShardSource(tmp_path), CPU, 0)


@pytest.mark.parametrize("name", names("data/cache"))
def test_from_the_command_line(name):
    cfg = composed("data=quickstart", f"data/cache={name}")
    assert type(build_datamodule(cfg).cache).__module__ == "lgm.data.sources.cache"


def test_a_thread_stays_ahead_raises_here_and_ends():
    made, others = [], {thread for thread in threading.enumerate() if thread.name == "ahead"}

    def items():
        for i in range(5):
            made.append(i)
            yield i
        raise ValueError("object 7 is broken")

    stream = ahead(items())
    assert next(stream) == 0
    wait_until(lambda: len(made) >= 4)
    time.sleep(0.2)  # in which it could go too far
    assert made == [0, 1, 2, 3]  # two wait, one more is in hand
    with pytest.raises(ValueError, match="object 7 is broken"):
        list(stream)
    assert list(ahead(range(3))) == [0, 1, 2]
    abandoned = ahead(iter(int, 1))
    next(abandoned)
    abandoned.close()
    assert {thread for thread in threading.enumerate() if thread.name == "ahead"} <= others


def test_a_program_ends_well_in_the_middle_of_a_stream():
    program = (
        "import torch; from lgm.data.stream.in_process import ahead\n"
        "stream = ahead(torch.randn(2000, 2000) @ torch.eye(2000) for _ in iter(int, 1)); next(stream)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
