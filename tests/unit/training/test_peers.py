"""The watch over ranks that Lightning has started: what it does, and when."""

import subprocess
import sys

import pytest
from lightning.pytorch.strategies.launchers import subprocess_script

from lgm.training import peers


def started(code: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])


@pytest.fixture
def watch(monkeypatch):
    """Watches ranks to the end without waiting; gives the exit codes that it would end this process with."""
    ends: list[int] = []
    monkeypatch.setattr(peers, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(peers, "_POLL_S", 0.01)
    monkeypatch.setattr(peers.os, "_exit", ends.append)

    def run(*ranks):
        peers._Watch(ranks).run()
        return ends

    return run


def test_ranks_that_end_well_end_nothing(watch):
    assert watch(started(0), started(0)) == []


def test_a_rank_that_died_ends_the_others_and_is_named(watch, capfd):
    waits = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert watch(started(0), started(9), waits) == [2]
    assert waits.wait() != 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: rank 2 has ended with exit code 9")


def test_it_stands_in_the_place_of_lightnings_observer(monkeypatch):
    monkeypatch.setattr(subprocess_script, "_launch_process_observer", None)
    peers.watch_peers()
    subprocess_script._launch_process_observer([])
