"""The soak test's judgement: what grows is seen, noise and a filling cache are not growth."""

import csv
import os
from dataclasses import astuple, fields

import pytest

from scripts.bench import soak


def samples(rss_mb, handles=lambda step: 20):
    steps = range(10, 2010, 10)
    return [soak.Sample(step / 10, step, rss_mb(step), handles(step), 4, 2, step * 0.02) for step in steps]


def judged(rows):
    return {name for name, points in soak.columns(rows).items() if soak.trend(points).grows}


@pytest.mark.parametrize(
    ("rss_mb", "handles", "growing"),
    [
        (lambda step: 500 + step % 3, lambda step: 20, set()),
        (
            lambda step: min(500, 100 + step),
            lambda step: 20,
            set(),
        ),  # a cache that fills in the first quarter
        (lambda step: 500 + step / 20, lambda step: 20, {"resident memory, MB"}),
        (lambda step: 500, lambda step: 20 + step // 100, {"open file descriptors"}),
    ],
)
def test_growth_is_told_from_noise(rss_mb, handles, growing):
    assert judged(samples(rss_mb, handles)) == growing


def test_a_recorded_soak_is_drawn_and_judged_again(tmp_path, capsys):
    rows = samples(lambda step: 500 + step / 20)
    with (tmp_path / "soak.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([[field.name for field in fields(soak.Sample)], *map(astuple, rows)])
    assert soak.read(tmp_path / "soak.csv") == rows
    assert soak.main(["--draw", str(tmp_path)]) == 1
    assert "resident memory, MB: 537.2" in capsys.readouterr().out
    assert (tmp_path / "soak.png").stat().st_size > 1000
    assert soak.main(["--draw", str(tmp_path / "none")]) == 2


def test_a_sample_counts_this_process_and_its_children(tmp_path):
    metrics = tmp_path / "metrics.csv"
    assert soak.sample(os.getpid(), metrics, 0.0).step == 0
    metrics.write_text("step,loss\n1,0.5\n12,0.4\n13,0.")
    row = soak.sample(os.getpid(), metrics, 1.0)
    assert row.step == 12 and row.rss_mb > 10 and row.processes >= 1 and row.handles >= 3
