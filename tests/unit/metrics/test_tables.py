"""Rows of measured images, and what is made of them."""

import json

import numpy as np
import pytest

from lgm.metrics import Protocol
from lgm.metrics.bootstrap import confidence_interval, confidence_intervals
from lgm.metrics.protocol import Bootstrap
from lgm.metrics.summary import BASELINES, per_object, per_view, summarise
from lgm.metrics.table import ViewTable, read_view_csv, write_csv

PROTOCOL = Protocol({"name": "p"})


def table(*rows: tuple[str, int, float], **columns: list[float]) -> ViewTable:
    uids, view_ids, values = zip(*rows, strict=True)
    plain = {"elevation_deg": 0.0, "azimuth_deg": 0.0, "ssim": 0.5, "alpha_iou": 1.0}
    return ViewTable(
        np.array(uids),
        {
            "view_id": np.array(view_ids, float),
            "psnr": np.array(values),
            **{name: np.full(len(rows), value) for name, value in plain.items()},
            **{name: np.array(column, float) for name, column in columns.items()},
        },
    )


def test_the_overall_number_is_the_mean_over_images_not_over_objects():
    measured = table(("a", 0, 10.0), ("b", 0, 20.0), ("b", 1, 30.0))
    summary = summarise(measured, PROTOCOL, {"lpips": "no LPIPS", "untrained": "none was given"})
    assert (summary["psnr"], summary["num_objects"], summary["num_views"]) == (20.0, 2, 3)
    assert summary["lpips"] is None and summary["lpips_reason"] == "no LPIPS"
    assert (summary["protocol"], summary["protocol_hash"]) == ("p", PROTOCOL.hash)
    assert summary["baselines"]["untrained"]["psnr"] is None
    assert summary["baselines"]["untrained"]["reason"] == "none was given"
    assert set(summary["baselines"]) == set(BASELINES)
    assert [line["psnr"] for line in per_object(measured, PROTOCOL)] == [10.0, 25.0]
    json.dumps(summary, allow_nan=False)


def test_rows_are_ordered_by_object_and_view():
    measured = table(("b", 1, 1.0), ("a", 2, 2.0), ("a", 0, 3.0)).ordered()
    assert list(zip(measured.uids, measured.columns["view_id"], strict=True)) == [
        ("a", 0),
        ("a", 2),
        ("b", 1),
    ]
    assert [(uid, list(rows.columns["psnr"])) for uid, rows in measured.by_object()] == [
        ("a", [3.0, 2.0]),
        ("b", [1.0]),
    ]


def test_two_objects_of_one_name_are_never_merged():
    twice = table(("b", 1, 1.0), ("a", 0, 2.0), ("b", 1, 5.0), ("a", 2, 3.0))
    with pytest.raises(ValueError, match="object 'b' stands in two of the sets"):
        twice.ordered()


def test_rows_of_some_objects_know_these_alone():
    some = table(("c", 0, 1.0), ("a", 0, 2.0), ("b", 0, 3.0), ("a", 1, 4.0))[np.array([0, 1, 3])]
    assert list(some.objects) == ["a", "c"]
    assert [list(column) for column in some.sums("psnr")] == [[6.0, 1.0], [2.0, 1.0]]


def test_a_column_that_one_rank_lacks_has_no_mean_unless_partly():
    whole = ViewTable.joined([table(("a", 0, 1.0), lpips=[0.25]), table(("b", 0, 2.0))])
    assert whole.mean("lpips") is None and whole.mean("lpips", partly=True) == 0.25
    assert whole.mean("psnr") == 1.5


def test_a_baseline_of_some_objects_says_of_how_many():
    measured = table(("a", 0, 1.0), ("b", 0, 2.0), untrained_psnr=[5.0, np.nan], untrained_ssim=[0.5, np.nan])
    baseline = summarise(measured, PROTOCOL, {})["baselines"]["untrained"]
    assert baseline == {"psnr": 5.0, "ssim": 0.5, "num_objects": 1}


def test_bands_and_an_empty_one():
    measured = table(("a", 0, 1.0), ("a", 1, 2.0), ("a", 2, 4.0), elevation_deg=[30.0001, -30.0, 31.0])
    bands = summarise(measured, PROTOCOL, {})["bands"]
    assert (bands["level"]["psnr"], bands["level"]["num_views"]) == (1.5, 2)  # rounding moves no camera
    assert (bands["above"]["psnr"], bands["above"]["num_views"]) == (4.0, 1)
    assert bands["below"]["psnr"] is None and "no target view" in bands["below"]["reason"]


def test_confidence_interval_is_that_of_a_mean_over_objects():
    """Of many objects with independent means: mean ± 1.96 standard errors."""
    rng = np.random.default_rng(1)
    means = rng.normal(20.0, 3.0, size=400)
    rows = [(f"{i:03d}", view, mean) for i, mean in enumerate(means) for view in range(5)]
    low, high = confidence_interval(table(*rows), "psnr", Bootstrap(resamples=4000))
    error = means.std(ddof=1) / 20
    assert low == pytest.approx(means.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(means.mean() + 1.96 * error, abs=0.15 * error)
    again = confidence_interval(table(*rows), "psnr", Bootstrap(resamples=4000))
    assert again == [low, high]


def test_no_interval_of_one_object():
    assert confidence_interval(table(("a", 0, 1.0), ("a", 1, 2.0)), "psnr", Bootstrap()) is None


def test_columns_resampled_together_are_each_as_alone():
    rows = [(name, view, float(view + ord(name))) for name in "abcd" for view in range(3)]
    depths = [np.nan] * 3 + list(range(9))  # not of the first object
    measured = table(*rows, depth_l1=depths, ssim=list(range(12)))
    together = confidence_intervals(measured, ["psnr", "ssim", "depth_l1", "lpips"], Bootstrap())
    assert together["lpips"] is None
    for name in ("psnr", "ssim", "depth_l1"):
        assert together[name] == pytest.approx(confidence_interval(measured, name, Bootstrap()))
    # Drawn one by one, as the definition says.
    rng, means = np.random.default_rng(0), []
    values = np.arange(12.0).reshape(4, 3)
    for _ in range(1000):
        means.append(values[rng.integers(4, size=4)].mean())
    assert together["ssim"] == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_an_objects_mean_is_known_where_all_its_images_are():
    measured = table(("b", 0, 1.0), ("a", 0, 2.0), ("b", 1, 4.0), lpips=[0.5, 0.25, np.nan])
    assert measured.object_means("lpips") == [0.25, None]
    assert measured.object_means("lpips", partly=True) == [0.25, 0.5]
    assert measured.object_means("depth_l1") == [None, None]
    assert [line["num_views"] for line in per_object(measured, PROTOCOL)] == [1, 2]


def test_a_table_of_views_comes_back(tmp_path):
    measured = table(("a,b", 4, 10.25), ("c", 5, 20.5), lpips=[0.5, np.nan])
    write_csv(tmp_path / "per_view.csv", per_view(measured, PROTOCOL))
    found = read_view_csv(tmp_path / "per_view.csv")
    assert found.uids.tolist() == ["a,b", "c"]
    for name, column in measured.columns.items():
        np.testing.assert_allclose(found.columns[name], column, atol=1e-6)
    (tmp_path / "per_view.csv").write_text("uid,view_id,psnr\na,1,x\n")
    with pytest.raises(ValueError, match="is damaged"):
        read_view_csv(tmp_path / "per_view.csv")
