"""scripts/curves.py, as a person calls it."""

import csv

import pytest
from PIL import Image

from tests.integration.running import run_script


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = ["step,train/psnr,train/loss/rgb,perf/steps_per_s,val/psnr"]
    rows += [
        f"{step},{10 + step / 100},{1 / step},3.0,{'15.123456789' if step == 100 else ''}"
        for step in range(1, 101)
    ]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_run_becomes_a_image_and_a_short_table(run, tmp_path):
    done = run_script("scripts/curves.py", run, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out" / "curves.png") as image:
        assert image.size[0] == 1200 and image.convert("L").getextrema()[0] < 100
    with (tmp_path / "out" / "mine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100 and set(rows[0]) == {"step", "train/psnr", "train/loss/rgb", "val/psnr"}
    assert rows[-1] == {"step": "100", "train/psnr": "11", "train/loss/rgb": "0.01", "val/psnr": "15.123"}


def test_what_is_no_run_is_said_in_one_line(tmp_path):
    done = run_script("scripts/curves.py", tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    (tmp_path / "metrics.csv").write_text("step,other\n1,2\n")
    done = run_script("scripts/curves.py", tmp_path)
    assert done.returncode == 1 and "has none of the columns" in done.stderr
