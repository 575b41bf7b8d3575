"""Parts of a step are timed where they happen, and read only when the device is done with them."""

import time

import pytest
import torch

from lgm.training.stopwatch import HostMoment, Stopwatch
from tests.clock import FakeClock

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr("lgm.training.stopwatch.time", fake)
    return fake


class FakeDevice:
    """Its events happen when it gets to them, two milliseconds apart."""

    def __init__(self) -> None:
        self.num_recorded = 0
        self.num_passed = 0

    def moment(self) -> "FakeMoment":
        return FakeMoment(self)


class FakeMoment:
    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def record(self) -> None:
        self.place = self.device.num_recorded
        self.device.num_recorded += 1

    def query(self) -> bool:
        return self.place < self.device.num_passed

    def elapsed_time(self, end: "FakeMoment") -> float:
        assert self.query() and end.query(), "read before the device got there"
        return 2.0 * (end.place - self.place)


def test_it_stands_still_until_it_is_started():
    watch = Stopwatch()
    watch.mark("network")
    watch.pause()
    watch.resume("other")
    watch.end_step()
    assert watch.read() == {}


def test_a_moment_of_the_host_is_on_its_clock():
    begin, end = HostMoment(), HostMoment()
    begin.record()
    time.sleep(0.02)
    end.record()
    assert begin.elapsed_time(end) >= 19  # milliseconds; how many more is the machine's affair


def test_parts_of_a_step_add_up_over_its_micro_batches(clock):
    watch = Stopwatch()
    watch.start(CPU)
    for _ in range(3):
        for _ in range(2):
            clock.sleep(0.004)
            watch.mark("data")
            clock.sleep(0.002)
            watch.mark("network")
        watch.end_step()
    assert watch.read() == pytest.approx({"data": 0.008, "network": 0.004})
    assert watch.read() == {}


def test_a_pause_counts_as_what_it_was_for_or_not_at_all(clock):
    watch = Stopwatch()
    watch.start(CPU)
    for part in ("other", None):
        clock.sleep(0.001)
        watch.pause()
        clock.sleep(0.01)
        watch.mark("network")  # a callback draws an image
        watch.resume(part)
    clock.sleep(0.002)
    watch.mark("data")
    watch.end_step()
    # With a part, from the mark before the pause on; without one, what came since that mark is lost with it.
    assert watch.read() == pytest.approx({"other": 0.011, "data": 0.002})
    assert watch.left_out_s == pytest.approx(0.01)


def test_steps_that_the_device_is_not_done_with_are_read_later(monkeypatch):
    device = FakeDevice()
    monkeypatch.setattr("lgm.training.stopwatch.HostMoment", device.moment)
    watch = Stopwatch()
    watch.start(CPU)
    for _ in range(3):
        watch.mark("network")
        watch.mark("render")
        watch.end_step()
    assert watch.read() == {}
    device.num_passed = 1 + 2 * 2 + 1  # two steps and a half
    assert watch.read() == pytest.approx({"network": 0.002, "render": 0.002})
    assert watch.read() == {}
    device.num_passed = 7
    assert watch.read() == pytest.approx({"network": 0.002, "render": 0.002})
