"""Evaluations come from others too: comparing them, showing them and exporting their numbers is safe."""

import copy
import json

import pytest

from lgm.metrics.summary import per_view, summarise
from lgm.metrics.table import write_csv
from lgm.reports.comparison import compare_folders, write_comparison
from scripts import model_card
from scripts.export import measured
from tests.unit.metrics.test_tables import PROTOCOL
from tests.unit.metrics.test_tables import table as rows

SECRET = "a-secret-of-this-machine"
WHITE = {"white_psnr": [9.0, 9.0], "white_ssim": [0.5, 0.5]}


@pytest.fixture(autouse=True)
def _secret(monkeypatch):
    monkeypatch.setenv("A_SECRET", SECRET)


@pytest.fixture(scope="module")
def summary() -> dict:
    table = rows(("a", 0, 10.0), ("b", 0, 20.0), **WHITE)
    found = summarise(table, PROTOCOL, {"lpips": "no LPIPS", "untrained": "none was given"})
    assert found["protocol_content"] == {"name": "p"}
    return {**found, "made_with": {"weights_hash": "x"}}


def written(folder, summary, config="ckpt: a.ckpt\ndata: {split: val}\n", views=None):
    folder.mkdir()
    (folder / "metrics.json").write_text(summary if isinstance(summary, str) else json.dumps(summary))
    (folder / "config.yaml").write_text(config)
    if views is None:
        write_csv(folder / "per_view.csv", per_view(rows(("a", 0, 10.0), ("b", 0, 20.0), **WHITE), PROTOCOL))
    else:
        (folder / "per_view.csv").write_bytes(views)
    return folder


def test_two_that_are_whole_compare(summary, tmp_path):
    folders = [written(tmp_path / name, summary) for name in "ab"]
    page = write_comparison(compare_folders(folders), tmp_path / "out").read_text()
    assert "a.ckpt" in page or "out" in page


def test_nothing_in_a_configuration_is_resolved(summary, tmp_path):
    folders = [written(tmp_path / name, summary, f"ckpt: {name}-${{oc.env:A_SECRET}}\n") for name in "ab"]
    comparison = compare_folders(folders)
    assert comparison.evaluations[0].label != comparison.evaluations[1].label
    page = write_comparison(comparison, tmp_path / "out").read_text()
    assert SECRET not in page and SECRET not in str([e.label for e in comparison.evaluations])


def nested(depth):
    return "[" * depth + "]" * depth


def bootstrap(**options):
    return {"protocol_content": {"name": "p", "metrics": {"bootstrap": options}}}


HOSTILE = {
    "no JSON": "{",
    "2,000 lists": nested(2000),
    "a list": "[]",
    "NaN": json.dumps({"psnr": float("nan")}),
    "a string for a metric": {"psnr": "20"},
    "a variable": {"protocol": "${oc.env:A_SECRET}"},
    "an order": {"psnr": {"_target_": "os.system"}},
    "a protocol that is none": {"protocol_content": 3},
    "a bootstrap that is none": bootstrap(x=1),
    "a bootstrap without end": bootstrap(resamples=10**12),
    "resamples that are none": bootstrap(resamples="9"),
    "views that are none": {"num_views": "2"},
}
VIEWS = {
    "empty": b"",
    "no UTF-8": b"uid,view_id,psnr\n\xff\xfe,0,1\n",
    "one cell too few": b"uid,view_id,psnr,white_psnr\na,0\n",
    "one cell too many": b"uid,view_id,psnr,white_psnr\na,0,1,2,3\n",
    "no metric": b"uid,view_id\na,0\n",
    "infinity": b"uid,view_id,psnr,white_psnr\na,0,1e999,1\n",
    "a cell of a megabyte": b"uid,view_id,psnr,white_psnr\n" + b"a" * (1 << 20) + b",0,1,1\n",
    "NUL": b"uid,view_id,psnr,white_psnr\na\0,0,x,1\n",
}


def one_line(error, *names) -> None:
    line = str(error.value)
    assert "\n" not in line and SECRET not in line and len(line) < 1000
    assert any(name in line for name in names), line


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_numbers_are_one_line_wherever_they_are_read(kind, summary, tmp_path, capsys, monkeypatch):
    changes = HOSTILE[kind]
    whole = {**copy.deepcopy(summary), **changes} if isinstance(changes, dict) else changes
    good, bad = written(tmp_path / "good", summary), written(tmp_path / "bad", whole)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        compare_folders([bad, good])
    one_line(error, "bad")
    assert model_card.main([str(bad), "--out", str(tmp_path / "card")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and SECRET not in captured.err
    with pytest.raises(ValueError) as error:  # noqa: PT011
        measured([bad], {})
    one_line(error, "bad")


@pytest.mark.parametrize("kind", VIEWS)
def test_hostile_tables_are_one_line(kind, summary, tmp_path):
    bad = written(tmp_path / "bad", summary, views=VIEWS[kind])
    with pytest.raises(ValueError) as error:  # noqa: PT011
        compare_folders([bad, bad])
    one_line(error, "bad")


@pytest.mark.parametrize("config", ["[", "- 3", "ckpt: [1]", "a: &a [*a]", "!!python/name:os.system", "3"])
def test_a_configuration_of_something_else(config, summary, tmp_path):
    folders = [written(tmp_path / name, summary, config) for name in "ab"]
    try:
        compare_folders(folders)  # its ckpt is a label alone
    except ValueError as error:
        assert "\n" not in str(error) and str(folders[0]) in str(error)  # noqa: PT017
    with pytest.raises(
        ValueError, match=r"a is no folder of an evaluation|a is an evaluation of other weights"
    ):
        measured(folders[:1], {})
