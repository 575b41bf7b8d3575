"""Atomic writes, and locks that end with their process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lgm.cli.lock import exclusive
from lgm.files import Locked, atomic, locked, set_aside, write_text
from tests.clock import GIVE_UP_S, wait_until


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "folder" / "metrics.json"
    write_text(path, "old é")
    with pytest.raises(RuntimeError), atomic(path, sync=True) as partial:  # noqa: PT012
        partial.write_text("half of")
        assert path.read_text("utf-8") == "old é"
        raise RuntimeError
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]
    with atomic(path, sync=True) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"


def test_a_damaged_file_is_set_aside_under_the_next_free_number(tmp_path):
    for number in (1, 2):
        path = tmp_path / "metrics.csv"
        path.write_text(str(number))
        assert set_aside(path).name == f"metrics.csv.damaged-{number}"
        assert not path.exists()
    assert (tmp_path / "metrics.csv.damaged-1").read_text() == "1"


def test_a_lock_is_held_against_threads_of_the_same_process(tmp_path):
    order = []

    def second():
        with locked(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path / "lock"):
        thread.start()
        with pytest.raises(Locked, match=f"process {os.getpid()} on"), locked(tmp_path / "lock", wait=False):
            pass
        order.append("first")
    thread.join(GIVE_UP_S)
    assert order == ["first", "second"]


def _hold(path, queue):
    with locked(path):
        queue.put("holds")
        time.sleep(GIVE_UP_S)


def test_a_lock_is_held_against_other_processes_and_free_once_its_holder_is_killed(tmp_path):
    path, queue = tmp_path / "lock", multiprocessing.get_context("fork").Queue()
    with locked(path):  # a fork inherits neither this lock nor the note of it
        process = multiprocessing.get_context("fork").Process(target=_hold, args=(path, queue))
        process.start()
    queue.get(timeout=GIVE_UP_S)
    with pytest.raises(Locked, match=f"process {process.pid} on"), locked(path, wait=False):
        pass
    process.kill()
    process.join()
    with locked(path, wait=False):
        pass


HOLDER = """
import os, sys, time
from pathlib import Path
from lgm.files import locked
with locked(Path(sys.argv[1], ".lock")):
    worker = os.fork()  # as a loader's worker: it outlives the kill
    if worker:
        Path(sys.argv[1], "worker").write_text(str(worker))
    time.sleep(600)
"""


def test_the_run_lock_is_free_while_forked_workers_of_the_killed_run_live_on(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)])
    wait_until(lambda: (tmp_path / "worker").is_file() and (tmp_path / "worker").read_text(), holder)
    with pytest.raises(ValueError, match=f"in use by process {holder.pid} on"), exclusive(tmp_path):
        pass
    worker = int((tmp_path / "worker").read_text())
    try:
        holder.kill()
        holder.wait()
        os.kill(worker, 0)  # alive
        with exclusive(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
