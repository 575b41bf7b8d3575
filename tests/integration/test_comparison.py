"""Several evaluations side by side: paired differences, and what is not compared."""

import csv
import json
import os
import runpy
import shutil

import numpy as np
import pytest

from lgm.callbacks.evaluation.measure import write_nothing_measured
from lgm.metrics import Protocol
from lgm.metrics.summary import per_view, summarise
from lgm.metrics.table import ViewTable, write_csv
from lgm.reports.comparison import compare_folders, comparison_text, write_comparison
from tests.integration.running import MICRO, ROOT, run_script, run_train

ALIKE = {"name": "p", "target_size": 256}


def write_evaluation(folder, gain=0.0, noise=0.0, content=None, objects=20, first_view=4, white=10.0):
    """What evaluate.py leaves, of made-up numbers: objects differ far more than checkpoints do."""
    rng = np.random.default_rng(0)
    uids = np.repeat([f"object-{i:02d}" for i in range(objects)], 3)
    own = np.repeat(rng.normal(20, 5, 20)[:objects], 3)
    count = len(uids)
    table = ViewTable(
        uids,
        {
            "view_id": np.tile([first_view, 5.0, 6.0], objects),
            "elevation_deg": np.zeros(count),
            "psnr": own + gain + noise * np.random.default_rng(1).normal(size=count),
            "ssim": np.full(count, 0.5),
            "lpips": np.full(count, 0.3) - gain / 100,
            "white_psnr": np.full(count, white),
        },
    )
    protocol = Protocol(content or ALIKE)
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(summarise(table, protocol, {})))
    (folder / "config.yaml").write_text(f"ckpt: /runs/{folder.name}/checkpoints/best.ckpt\n")
    write_csv(folder / "per_view.csv", per_view(table, protocol))
    return folder


def test_a_small_gain_shows_although_objects_differ_by_far_more(tmp_path):
    first = write_evaluation(tmp_path / "a")
    comparison = compare_folders([first, write_evaluation(tmp_path / "b", gain=0.2, noise=0.3)])
    own = comparison.evaluations[0].summary["confidence"]["psnr"]
    found = comparison.differences[0]["psnr"]
    assert own[1] - own[0] > 2  # alone, each mean is uncertain by decibels
    assert found.interval[0] > 0 and found.mean == pytest.approx(0.2, abs=0.1)
    assert found.num_better > 10 and found.num_objects == 20
    lpips = comparison.differences[0]["lpips"]  # lower is better
    assert lpips.mean == pytest.approx(-0.002, abs=1e-6) and lpips.num_better == 20
    assert comparison.differences[0]["ssim"].num_better == 0


def test_table_and_page_carry_the_protocol_and_both_names(tmp_path):
    folders = [
        write_evaluation(tmp_path / name, gain) for name, gain in (("a<b>", 0.0), ("b", 1.0), ("c", -1.0))
    ]
    (folders[0] / "report.html").write_text("x")
    comparison = compare_folders(folders)
    page = write_comparison(comparison, tmp_path / "out").read_text()
    protocol = Protocol(ALIKE)
    for text in (page, comparison_text(comparison)):
        assert protocol.hash in text and "+1.00" in text and "-1.00" in text
    assert "a&lt;b&gt;/checkpoints/best.ckpt" in page and "<b>/" not in page
    assert "http:" not in page and "https:" not in page
    assert 'href="../a%3Cb%3E/report.html"' in page
    values = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert values["protocol_hash"] == protocol.hash
    assert [
        e["less_the_first"] and e["less_the_first"]["psnr"]["num_better"] for e in values["evaluations"]
    ] == [
        None,
        20,
        0,
    ]


def test_no_folder_of_the_machine_is_on_the_page(tmp_path):
    folders = [write_evaluation(tmp_path / name) for name in "ab"]
    (folders[1] / "config.yaml").write_text("ckpt: mini\n")  # so that the other's path is shown whole
    comparison = compare_folders(folders)
    assert comparison.evaluations[0].label == "/runs/a/checkpoints/best.ckpt"
    page = write_comparison(comparison, tmp_path / "out").read_text()
    assert "/runs" not in page and "…/best.ckpt" in page and str(tmp_path) not in page


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (
            {"content": {**ALIKE, "target_size": 128}},
            r"protocol.target_size 256 → 128\): their numbers do not compare",
        ),
        ({"objects": 17}, "b/.* was not measured on 3 of the 20 objects of a/.*, e.g. 'object-17'"),
        ({"first_view": 3}, "on other views of the same objects"),
        ({"white": 11.0}, "other images of the same names, e.g. of object 'object-00'"),
    ],
)
def test_what_does_not_compare_is_refused(tmp_path, other, match):
    folders = [write_evaluation(tmp_path / "a"), write_evaluation(tmp_path / "b", **other)]
    with pytest.raises(ValueError, match=match) as error:
        compare_folders(folders)
    assert "\n" not in str(error.value)


def test_folders_that_are_none(tmp_path, monkeypatch, capsys):
    first = write_evaluation(tmp_path / "a")
    with pytest.raises(ValueError, match="needs two runs"):
        compare_folders([first])
    with pytest.raises(FileNotFoundError, match=r"has no metrics.json"):
        compare_folders([first, tmp_path])
    old = write_evaluation(tmp_path / "old")
    (old / "metrics.json").write_text('{"psnr": 1.0}')
    with pytest.raises(ValueError, match="has no num_objects; evaluate again"):
        compare_folders([first, old])
    shutil.rmtree(old)
    monkeypatch.setattr("sys.argv", ["compare.py", str(first), str(old), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "scripts" / "compare.py"), run_name="__main__")
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 2 and line.startswith("error: ")


def test_where_nothing_was_measured_the_comparison_says_so(tmp_path):
    """Four images and no others, say; not that the evaluation is old."""
    first, other = (write_evaluation(tmp_path / name) for name in ("a", "b"))
    write_nothing_measured(other, Protocol(ALIKE), ["cup"])
    summaries = [json.loads((folder / "metrics.json").read_text()) for folder in (first, other)]
    assert summaries[1]["protocol_content"] == summaries[0]["protocol_content"]
    assert summaries[1]["confidence"].keys() == summaries[0]["confidence"].keys()
    assert not (other / "per_view.csv").exists()  # those of before
    with pytest.raises(ValueError, match=r"b: nothing was measured \(every image .* is an input") as error:
        compare_folders([first, other])
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_sweep_over_checkpoints_ends_with_one_table(dataset, tmp_path):
    run_train(dataset, tmp_path / "run", "train.max_steps=2", "train.val_every_steps=1")
    ckpts = ",".join(str(tmp_path / "run" / "checkpoints" / f"{name}.ckpt") for name in ("last", "best"))
    options = [o for o in MICRO if not o.startswith(("model", "recipe", "resolution"))]
    options += [f"data.path={dataset}", "data.split=val", "callbacks.measure.lpips=null"]
    earlier = write_evaluation(tmp_path / "sweep" / "7") / "metrics.json"  # a larger sweep in this folder
    os.utime(earlier, (1e9, 1e9))
    result = run_script("evaluate.py", "-m", f"ckpt={ckpts}", *options, f"run_dir={tmp_path / 'sweep'}")
    assert result.returncode == 0, result.stderr
    assert "PSNR less the first's" in result.stdout
    values = json.loads((tmp_path / "sweep" / "comparison.json").read_text())
    assert [e["label"] for e in values["evaluations"]] == ["last.ckpt", "best.ckpt"]
    with (tmp_path / "sweep" / "0" / "per_object.csv").open() as file:
        assert next(csv.DictReader(file))["protocol_hash"] == values["protocol_hash"]
    assert (tmp_path / "sweep" / "comparison.html").is_file()
