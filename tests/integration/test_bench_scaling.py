"""`scripts/bench/scaling.py`: weak scaling, curves, faults and FSDP, on processes of a CPU."""

import importlib
import json
import sys
import time

import pytest

from data_tools.verify.command import main as verify
from tests.integration.running import MICRO, ROOT, run_train, start_script

NEIGHBOURS = (
    *("scaling", "scaling_report", "faults", "training_runs", "rank_report", "random_vgg", "seeded_shards"),
)


@pytest.fixture
def bench(monkeypatch):
    """Imports one of the files of scripts/bench by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    yield importlib.import_module
    for name in NEIGHBOURS:  # their names are anybody's
        sys.modules.pop(name, None)


def report(rank, synced, alone=(), peak=1.0):
    return {"rank": rank, "synced_ms": list(synced), "alone_ms": list(alone), "peak_gib": peak}


def test_rows_are_of_the_slowest_rank(bench):
    scaling_report = bench("scaling_report")
    one = scaling_report.throughput_row([report(0, [100, 102])], batch=8)
    two = scaling_report.throughput_row(
        [report(0, [110, 112], [90, 90]), report(1, [111, 111], [100, 98], 2)], 8
    )
    assert one["samples_per_s"] == pytest.approx(8 / 0.101) and one["all_reduce_not_hidden_ms"] == 0
    # Medians over blocks of 111 and 112 with, and of 100 and 98 without reduction.
    assert two["step_ms"] == 111.5 and two["all_reduce_not_hidden_ms"] == 12.5 and two["peak_gib"] == 2
    rows = [{"processes": 4, "fault": "no time is left"}, one, two]
    assert scaling_report.with_efficiency(rows)[2]["efficiency"] == pytest.approx(101 / 111.5)
    table = scaling_report.throughput_table(rows, "GPUs")
    assert (
        "| 4 | – |" in table
        and "no time is left" in table
        and "| 2 | 143.5 | 0.906 | 111.5 | 12.5 |" in table
    )


def test_shards_of_a_seed_are_the_same_each_time(bench, tmp_path):
    write_shards = bench("seeded_shards").write_shards
    tars = [
        (write_shards(tmp_path / name, 2, 6, 16, seed, 1) / "train-000000.tar").read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert tars[0] == tars[1] != tars[2]


@pytest.mark.slow
def test_shards_of_a_seed_are_valid(bench, tmp_path, capsys):
    folder = bench("seeded_shards").write_shards(tmp_path / "set", 40, 6, 16, 0)
    assert verify([str(folder)]) == 0, capsys.readouterr().out
    assert "42 objects" in capsys.readouterr().out


def test_a_rank_reports_blocks_of_steps(bench, dataset, tmp_path):
    report = bench("training_runs").RankFiles(tmp_path / "ranks")
    added = report.options(warm_up=1, steps=2, repeats=1)
    run_train(dataset, tmp_path / "run", "train.max_steps=4", "train.val_every_steps=4", *added)
    assert report.read(1) and not report.read(2)
    (rank,) = report.ranks
    assert rank["first_step"] == 0 and rank["has_stepped"] and rank["peak_gib"] > 0
    assert len(rank["synced_ms"]) == 1 and rank["synced_ms"][0] > 0 and rank["alone_ms"] == []


def test_what_a_run_says_is_in_the_row_of_a_part_that_failed(bench, tmp_path):
    scaling, training_runs = bench("scaling"), bench("training_runs")
    command = [sys.executable, "-c", "print('no such data set'); raise SystemExit(2)"]

    def part():
        with training_runs.Run(command, tmp_path / "run", time.monotonic() + 300) as run:
            run.succeed()

    (row,) = scaling.tried(part, 4)
    assert row["processes"] == 4 and not row["is_right"] and "exit code 2" in row["fault"]
    late = training_runs.Run(command, tmp_path / "run", time.monotonic() - 1)
    with late as run, pytest.raises(training_runs.RunFailed, match=r"no time is left(.|\n)*no such data set"):
        run.until(lambda: False)


@pytest.mark.slow
def test_everything_on_two_processes(tmp_path):
    micro = [option for option in MICRO if option.startswith(("model.", "resolution."))]
    options = [word for option in micro for word in ("--set", option)]
    smallest = ("--processes", 1, 2, "--batch", 1, "--workers", 1, "--steps", 2, "--curve-steps", 3)
    smallest += ("--objects", 4, "--views", 9, "--save-every", 1, "--minutes", 60)
    done = start_script("scripts/bench/scaling.py", *smallest, *options, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert [row["processes"] for row in report["throughput"]] == [1, 2]
    assert all(row["samples_per_s"] > 0 and 0 <= row["data_share"] < 1 for row in report["throughput"])
    assert report["curves"][0]["largest_relative_difference"] < 0.01
    assert [row["signal"] for row in report["faults"]] == ["SIGTERM", "SIGKILL", "none"]
    assert [row["signal"] for row in report["fsdp"]] == ["SIGKILL", "none"]
    for row in (*report["faults"], *report["fsdp"]):
        assert (
            row["is_right"] and row.get("resumed_at_step", row["checkpoint_step"]) == row["checkpoint_step"]
        )
