"""The table, the importances and the image of a sweep."""

import csv

import pytest

from lgm.cli.sweeps.importance import importances, main_effects
from lgm.cli.sweeps.report import CSV_NAME, IMAGE_NAME, SweepReport
from lgm.cli.sweeps.table import Row, ranked, short_names, table_text


def rows() -> list[Row]:
    return [
        Row(0, "complete", 20.0, {"optimizer.lr": 1e-4, "scheduler": "a"}, 100, 3.0),
        Row(1, "failed", None, {"optimizer.lr": 1e-1, "scheduler": "b"}, 3, 1.0, "ten steps were skipped"),
        Row(2, "pruned", 25.0, {"optimizer.lr": 2e-4, "scheduler": "a"}, 50),
        Row(3, "complete", 22.0, {"optimizer.lr": 1e-3, "scheduler": "b", "scheduler.warmup": 5}, 100),
        Row(4, "killed", None, {"optimizer.lr": 1e-3}, 70),
        Row(5, "running", None, {"optimizer.lr": 1e-3}),
    ]


def test_the_best_complete_trial_comes_first():
    assert [row.number for row in ranked(rows(), "maximize")] == [3, 0, 2, 5, 1, 4]
    assert [row.number for row in ranked(rows(), "minimize")] == [0, 3, 2, 5, 1, 4]


def test_table_and_image(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is missing; pip install 'lgm-training[plots]'")
    assert SweepReport(tmp_path, "val/psnr", "maximize").finish(rows()) == 22.0
    with (tmp_path / CSV_NAME).open() as file:
        table = list(csv.DictReader(file))
    assert [row["trial"] for row in table] == ["3", "0", "2", "5", "1", "4"]
    assert table[0]["val/psnr"] == "22.0" and table[0]["scheduler.warmup"] == "5"
    assert table[4]["status"] == "failed" and table[4]["error"] == "ten steps were skipped"
    assert (tmp_path / IMAGE_NAME).read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "22.0000" in said and str(tmp_path / IMAGE_NAME) in said


def test_without_a_measured_trial_there_is_a_table_alone(tmp_path):
    assert SweepReport(tmp_path, "val/psnr", "maximize").finish([rows()[1]]) is None
    assert (tmp_path / CSV_NAME).is_file() and not (tmp_path / IMAGE_NAME).exists()


def test_a_folder_that_cannot_be_written_costs_a_line(tmp_path, caplog):
    (tmp_path / CSV_NAME).mkdir()
    assert SweepReport(tmp_path, "val/psnr", "maximize").finish(rows()[:1]) == 20.0
    assert f"{tmp_path / CSV_NAME} was not written" in caplog.text


def test_main_effects_of_a_grid():
    """value = 3 x + y on a full grid: variances 9 : 1."""
    grid = [Row(i, "complete", 3.0 * x + y, {"x": x, "y": y}) for i, (x, y) in enumerate_pairs()]
    assert main_effects(grid) == pytest.approx({"x": 9 * 2 / 3, "y": 2 / 3})
    assert importances(grid, None) == pytest.approx({"x": 0.9, "y": 0.1})
    assert importances(grid[:3], None) == {}  # too few


def enumerate_pairs():
    return enumerate([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)])


def test_names_are_short_where_they_stay_different():
    keys = ["optimizer.lr", "loss.terms.rgb.weight", "loss.terms.alpha.weight"]
    assert short_names(keys) == ["lr", *keys[1:]]


def test_a_long_table_is_cut_on_the_terminal():
    text = table_text([Row(i, "complete", float(i)) for i in range(30)], "val/psnr")
    assert text.endswith(f"and 10 more in {CSV_NAME}") and len(text.splitlines()) == 22
