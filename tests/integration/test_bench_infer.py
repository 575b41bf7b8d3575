"""`scripts/bench/infer.py`: one command, a table and a file of numbers."""

import json
import runpy
import sys

import pytest

from lgm.gaussians import ply
from lgm.models import FastLGM
from tests.clock import FakeClock
from tests.integration.running import ROOT

TICK = 1  # millisecond, of which each look at the clock takes one


class TickingClock(FakeClock):
    def perf_counter(self) -> float:
        self.sleep(TICK / 1000)
        return self.now


def test_it_measures_every_step(tmp_path, monkeypatch, capsys):
    """By a clock on which the network takes 40 milliseconds, a .ply 20, and nothing else anything."""
    clock = TickingClock()

    def lasting(seconds, function):
        def slowed(*args, **kwargs):
            clock.sleep(seconds)
            return function(*args, **kwargs)

        return slowed

    monkeypatch.setattr(FastLGM, "splat_map", lasting(0.04, FastLGM.splat_map))
    monkeypatch.setattr(ply, "save_ply", lasting(0.02, ply.save_ply))
    monkeypatch.setattr("time.perf_counter", clock.perf_counter)
    monkeypatch.syspath_prepend(ROOT / "scripts" / "bench")
    monkeypatch.delitem(sys.modules, "render", raising=False)  # its neighbour's name is anybody's
    options = ["--model", "nano", "--repeats", "1", "--frames", "2", "--size", "32"]
    monkeypatch.setattr(sys, "argv", ["infer.py", *options, "--json", str(tmp_path / "out.json")])
    runpy.run_path(str(ROOT / "scripts" / "bench" / "infer.py"), run_name="__main__")
    sys.modules.pop("render")

    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["num_gaussians"] == 4096 and report["options"]["precision"] == "fp32"
    steps = report["steps"]
    assert all(name.split(",")[0] in printed for name in steps)
    assert {name: step["min_ms"] for name, step in steps.items()} == pytest.approx(
        {
            "images to the device, rays": TICK,
            "network": 40 + TICK,
            "activations and .ply": 20 + TICK,
            "four images to a saved .ply": 60 + TICK,
            "turntable, drawn": TICK,
            "turntable, drawn and encoded, .mp4": TICK,
            "turntable, drawn and encoded, .mp4 and .gif": TICK,
        }
    )
