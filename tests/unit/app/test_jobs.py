"""One at a time, a few wait, the next is told; what nobody waits for ends."""

import threading

import pytest

from lgm.app import jobs as module
from lgm.app.jobs import Jobs
from lgm.app.messages import UNEXPECTED, Refused
from tests.clock import GIVE_UP_S, FakeClock


@pytest.fixture
def jobs():
    jobs = Jobs(limit=2)
    yield jobs
    jobs.close()
    jobs.join()


class Gate:
    """Work that goes on when it is told to."""

    def __init__(self):
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, job):
        self.begun.set()
        assert self.open.wait(GIVE_UP_S)
        job.report("on", 0.5)
        return "result"


def test_they_run_one_after_the_other_and_the_third_is_refused(jobs, tmp_path):
    gate = Gate()
    first = jobs.submit("a", tmp_path, gate)
    assert gate.begun.wait(GIVE_UP_S)
    second = jobs.submit("b", tmp_path, lambda job: first.done.is_set())
    assert (jobs.ahead_of(first), jobs.ahead_of(second)) == (0, 1)
    with pytest.raises(Refused, match="busy: 2"):
        jobs.submit("c", tmp_path, gate)
    gate.open.set()
    assert second.done.wait(GIVE_UP_S)
    assert (first.result, second.result, first.error) == ("result", True, None)
    assert jobs.submit("d", tmp_path, lambda job: 4).done.wait(GIVE_UP_S)


def test_a_mistake_is_a_line_and_a_fault_is_in_the_log(jobs, tmp_path, caplog):
    def mistaken(job):
        raise ValueError(f"{tmp_path}/front.png shows no object; say another data/background")

    def broken(job):
        raise RuntimeError(f"{tmp_path} is secret")

    one = jobs.submit("a", tmp_path, mistaken)
    other = jobs.submit("b", tmp_path, broken)
    assert one.done.wait(GIVE_UP_S) and other.done.wait(GIVE_UP_S)
    assert one.error == "Front.png shows no object"
    assert other.error == UNEXPECTED
    assert "is secret" in caplog.text


def test_what_nobody_watches_ends_and_leaves_its_place(jobs, tmp_path, monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(module, "time", clock)
    gate = Gate()
    left = jobs.submit("a", tmp_path, gate)
    assert gate.begun.wait(GIVE_UP_S)
    waiting = jobs.submit("b", tmp_path, lambda job: "never")
    clock.sleep(61)
    watched = jobs.submit("c", tmp_path, lambda job: "made")  # two are under way, but nobody waits for them
    gate.open.set()
    assert watched.done.wait(GIVE_UP_S)
    assert watched.result == "made"
    assert "given up" in left.error and "given up" in waiting.error


def test_the_end_of_the_program_ends_what_runs(tmp_path):
    jobs, gate = Jobs(), Gate()
    job = jobs.submit("a", tmp_path, gate)
    assert gate.begun.wait(GIVE_UP_S)
    jobs.close()
    gate.open.set()
    jobs.join()
    assert "given up" in job.error


def test_a_queue_of_nobody_is_refused():
    with pytest.raises(ValueError, match="queue_limit=0"):
        Jobs(0)
