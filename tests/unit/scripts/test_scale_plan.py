"""The plan on paper: its arithmetic by hand, and against the simulation."""

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "scale_plan", Path(__file__).parents[3] / "scripts/scale_plan.py"
)
scale_plan = importlib.util.module_from_spec(_spec)
sys.modules["scale_plan"] = scale_plan  # dataclasses look their module up
_spec.loader.exec_module(scale_plan)
GIVEN = scale_plan.Assumptions()


def test_by_hand():
    plan = scale_plan.plan(1_000_000, 64, GIVEN)
    assert plan.set_bytes == 8.4e11 and plan.shards == 3282 and plan.consumers == 512
    assert plan.objects_per_s == pytest.approx(64 * 8 / 0.15 * 0.96)
    assert plan.pass_s == pytest.approx(305.2, abs=0.1)
    assert plan.disk_bytes_per_gpu_s == pytest.approx(51.2 * 8 * 8400)
    assert plan.net_bytes_per_machine_s == pytest.approx(plan.download_factor * 51.2 * 8 * 840e3)
    assert 1 < plan.download_factor < 1.01
    assert plan.checkpoint_bytes_per_day == pytest.approx(86400 / 75 * 6.6e9)
    assert plan.failures_per_day == pytest.approx(64 * 24 / 50_677, rel=1e-3)


def test_the_simulation_agrees():
    for name, computed, simulated in scale_plan.checks(GIVEN, num_failures=40_000):
        assert computed == pytest.approx(simulated, rel=0.02), name


def test_without_failures_all_time_is_useful():
    assert scale_plan.useful_fraction(0, 540, 300) == 1.0
    assert scale_plan.useful_fraction(1e-9, 540, 300) == pytest.approx(1, abs=1e-5)


def test_the_table_and_what_replaces_an_assumption(capsys):
    assert scale_plan.main(["--step-s", "0.3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 9 + 2 and all(line.count("|") == lines[0].count("|") for line in lines[:11])
    assert lines[-1] == (
        "Each GPU: 1.72 MB/s of a local set, 0.8 cores. Checkpoints: 3.8 TB a day, by minutes alone 1.06 TB."
    )
    assert lines[2].startswith("| 80,000 | 8 | 67.2 GB | 263 | 64 | 1.00 |")
