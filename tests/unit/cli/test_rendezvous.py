"""Ranks of one round find each other in a store that remembers the rounds before."""

import os
import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from lgm.cli import rendezvous
from lgm.cli.rendezvous import agreed, separate_round

PATIENCE = timedelta(minutes=5)


@pytest.fixture
def server():
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(rendezvous, "_POLL_S", 0.001)


def client(server):
    return dist.TCPStore("127.0.0.1", server.port, is_master=False)


def start(server, rank, world_size, value, results, key=None):
    def run():
        results[rank if key is None else key] = agreed(
            client(server), rank, world_size, lambda: value, PATIENCE
        )

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("first", [0, 2])
def test_each_round_gets_its_own_value_whoever_comes_first(server, first):
    for value in ("one", "two", "three"):
        results = {}
        threads = [start(server, rank % 3, 3, value, results) for rank in range(first, first + 3)]
        for thread in threads:
            thread.join(60)
        assert results == {0: value, 1: value, 2: value}


def test_a_rank_that_comes_before_the_first_one_waits_for_the_new_round(server):
    results = {}
    for thread in [start(server, rank, 2, "old", results) for rank in range(2)]:
        thread.join(60)
    store = client(server)
    answer = f"{store.get('token').decode()}/1"
    before = store.get(answer)
    early = start(server, 1, 2, "", results, "early")
    while store.get(answer) == before:  # until it has answered the old round
        pass
    assert "early" not in results
    start(server, 0, 2, "new", results, "first").join(60)
    early.join(60)
    assert results["early"] == results["first"] == "new"


def test_a_rank_that_does_not_come_is_named(server):
    with pytest.raises(ValueError, match=r"rank 1, 2 has not come within 0\.\d+ minutes"):
        agreed(client(server), 0, 3, lambda: "x", timedelta(milliseconds=50))
    with pytest.raises(ValueError, match="rank 0 has not come"):
        agreed(client(server), 1, 3, lambda: "x", timedelta(milliseconds=50))


@pytest.mark.parametrize("shared", [None, "False"])
def test_nothing_is_done_where_no_store_is_shared(monkeypatch, shared):
    for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    separate_round()
    if shared is not None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", shared)
        separate_round()
    assert "MASTER_PORT" not in os.environ


def test_the_first_rank_opens_a_store_where_torch_distributed_looks_for_it(server, monkeypatch):
    values = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "0"}
    values |= {"WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rendezvous, "_own", [])
    separate_round()
    assert os.environ["MASTER_PORT"] != str(server.port)
    assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "False"
    store, rank, world_size = next(dist.rendezvous("env://"))
    store.set("a", "1")
    other = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), is_master=False)
    assert (rank, world_size, other.get("a")) == (0, 1, b"1")
