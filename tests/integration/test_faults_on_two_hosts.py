"""Faults of data and disk under DDP: the run goes on, or ends in one line on each rank. Nothing hangs."""

import errno
import multiprocessing
import os
import shutil
import signal

import pytest
import torch

from lgm.data.schema.sample import BrokenSample
from lgm.data.stream import batches
from lgm.data.transport import transfer, urls
from lgm.training.module import LGMModule
from tests.datasets import write_dataset
from tests.integration.test_hosts import run_on_two_hosts, train
from tests.integration.test_resume import last
from tests.web_server import bad_server

pytestmark = pytest.mark.slow
STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "set", train=(4, 4), val=(2,))


def run(path, run_dir, fault, *options):
    """Train on two hosts, in each of which `fault` has been called with its rank first; returns both."""

    def host(rank, *own):
        fault(rank)
        train(*own)

    own = (f"data.path={path}", f"run_dir={run_dir}", f"train.max_steps={STEPS}", *options)
    return run_on_two_hosts(host, (0, *own), (1, *own))


def at_step(step, act):
    """From now on `act` is called where so many steps are done."""
    original = LGMModule.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            act()
        return original(self, batch, batch_idx)

    LGMModule.training_step = training_step


def error_of(host) -> str:
    lines = [line for line in host.stderr.splitlines() if line.startswith("error: ")]
    assert host.returncode == 2 and len(lines) == 1 and "Traceback" not in host.stderr, host.stderr
    return lines[0]


def assert_trained(hosts, run_dir):
    assert [host.returncode for host in hosts] == [0, 0], [host.stderr for host in hosts]
    assert last(run_dir)["global_step"] == STEPS


@pytest.mark.parametrize("workers", [0, 1])
def test_shards_that_vanish_in_the_middle(data, tmp_path, workers):
    path = tmp_path / "set"
    shutil.copytree(data, path)

    def vanish(rank):
        if rank == 1:
            at_step(1, lambda: [shard.unlink() for shard in path.glob("train-*.tar")])

    hosts = run(path, tmp_path / "run", vanish, f"data.num_workers={workers}")
    errors = sorted(error_of(host) for host in hosts)
    assert any("train-0" in line for line in errors), errors
    assert last(tmp_path / "run")["global_step"] >= 1


def test_a_broken_object_late_in_an_epoch_is_left_out_by_the_rank_that_meets_it(data, tmp_path):
    def break_one(rank):
        make_item = batches.make_item

        def breaks(posed, *args, **kwargs):
            if posed.uid == "object-006":
                (tmp_path / f"met_by_{rank}").touch()
                raise BrokenSample(f"object {posed.uid!r}: view 3 is cut off")
            return make_item(posed, *args, **kwargs)

        batches.make_item = breaks

    hosts = run(data, tmp_path, break_one, "data.max_broken_fraction=0.2")
    assert_trained(hosts, tmp_path)
    assert list(tmp_path.glob("met_by_*"))


def test_a_dead_loader_worker_of_one_rank_ends_both(data, tmp_path):
    def kill(rank):
        if rank == 1:
            at_step(2, lambda: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL))

    first, second = run(data, tmp_path, kill, "data.num_workers=1")
    assert "a loader worker (process " in error_of(second) and "SIGKILL" in error_of(second)
    assert "another process of this run is gone" in error_of(first)
    assert last(tmp_path)["global_step"] >= 2


def test_a_store_that_stalls_is_asked_again(data, tmp_path):
    def hurry(rank):
        transfer.SILENCE_S = 2.0
        urls._PAUSES_S = (0.01, 0.01, 0.01)

    with bad_server() as server:
        server.files = {f"/set/{path.name}": path.read_bytes() for path in data.iterdir()}
        server.trouble = {"/set/train-000001.tar": ["stall", "stall"]}
        hosts = run(f"{server.url}/set", tmp_path, hurry, f"data.cache_dir={tmp_path / 'cache'}")
        assert not server.trouble["/set/train-000001.tar"]
    assert_trained(hosts, tmp_path)


def test_a_full_disk_ends_both_and_leaves_the_checkpoint_before(data, tmp_path):
    def fill(rank):
        save = torch.save

        def full(checkpoint, file, *args, **kwargs):
            if checkpoint["global_step"] >= 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            save(checkpoint, file, *args, **kwargs)

        torch.save = full

    first, second = run(data, tmp_path, fill, "train.checkpoint_every_steps=1")
    assert "last.ckpt cannot be written ([Errno 28]" in error_of(first)
    assert "another process of this run is gone" in error_of(second)
    assert last(tmp_path)["global_step"] == 2
