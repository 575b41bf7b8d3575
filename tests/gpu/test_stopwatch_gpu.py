"""On a GPU, parts are timed by events in its stream of work."""

import time

import pytest
import torch

from lgm.training.stopwatch import Stopwatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


def work(times: int) -> None:
    matrix = torch.ones(4096, 4096, device="cuda")
    for _ in range(times):
        matrix = matrix @ matrix * 1e-4


def test_a_part_is_what_it_costs_the_device_and_nobody_waits():
    work(3)
    torch.cuda.synchronize()
    watch = Stopwatch()
    begin = time.perf_counter()
    watch.start(torch.device("cuda"))
    for _ in range(2):
        watch.mark("data")
        work(10)
        watch.mark("network")
        work(40)
        watch.mark("render")
        watch.end_step()
    launched = time.perf_counter() - begin
    torch.cuda.synchronize()
    elapsed = time.perf_counter() - begin
    seconds = watch.read()
    assert launched < elapsed / 2
    assert 2 * sum(seconds.values()) == pytest.approx(elapsed, rel=0.1)
    assert seconds["render"] == pytest.approx(4 * seconds["network"], rel=0.3)
    # The device had work all along: a loader that keeps ahead costs it nothing.
    assert seconds["data"] < 0.1 * seconds["network"]
