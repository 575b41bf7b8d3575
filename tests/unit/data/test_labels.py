"""Labels of a table beside the set (Objaverse++), joined by uid: in filters of training, and in
data_tools.pack."""

from __future__ import annotations

import csv
import json
import logging
import pickle
from pathlib import Path

import pytest

from data_tools.pack import command as pack
from lgm.cli.build import build_datamodule
from lgm.data.sources.filters import Filters
from lgm.data.sources.labels import Labels
from lgm.data.sources.shards import ShardSource
from tests.datasets import write_dataset
from tests.unit.cli.test_configs import composed
from tests.unit.data_tools.test_data_tools_shards import make_renders

# As Objaverse++ publishes them: words for what is true, a number from 0 to 3 for the quality.
ROWS = [
    {"UID": "object-000", "style": "realistic", "score": 3, "is_scene": "false", "is_multi_object": "false"},
    {"UID": "object-001", "style": "cartoon", "score": 0, "is_scene": "false", "is_multi_object": "true"},
    {"UID": "object-002", "style": "scanned", "score": 2, "is_scene": "true", "is_multi_object": "false"},
    {"UID": "object-003", "style": "scanned", "score": 2, "is_scene": "false", "is_multi_object": "false"},
    {"UID": "elsewhere", "style": "anime", "score": 1, "is_scene": "false", "is_multi_object": "false"},
]


def write_labels(path: Path) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif path.suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is missing; pip install 'lgm-training[objaverse]'")
        import pyarrow.parquet

        rows = [{**row, "score": float(row["score"]), "is_scene": row["is_scene"] == "true"} for row in ROWS]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:  # as its program writes a CSV: 0 and 1
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ROWS[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            number = {"true": 1, "false": 0}
            writer.writerows({key: number.get(value, value) for key, value in row.items()} for row in ROWS)
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_table_says_the_same_in_every_form(tmp_path, suffix):
    labels = Labels(write_labels(tmp_path / f"labels.{suffix}"))
    assert set(labels.columns) == {"style", "score", "is_scene", "is_multi_object"}
    assert labels.of("object-001") == {
        "style": "cartoon", "score": "0", "is_scene": "false", "is_multi_object": "true",
    }  # fmt: skip
    assert labels.of("object-004") == {}
    assert pickle.loads(pickle.dumps(labels)).of("object-000")["score"] == "3"


def test_a_table_of_uids(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": {"score": 1, "ok": True}, "b": {"score": None}}))
    assert Labels(tmp_path / "a.json").of("a") == {"score": "1", "ok": "true"}
    assert Labels(tmp_path / "a.json").of("b") == {}


def test_what_an_object_says_of_itself_stays(tmp_path):
    (tmp_path / "a.csv").write_text("uid,licence,score,category\na,MIT,2,chair\n")
    joined = Labels(tmp_path / "a.csv").join({"uid": "a", "licence": "CC0-1.0", "score": "1"})
    assert joined == {"uid": "a", "licence": "CC0-1.0", "score": "2", "category": "chair"}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"score": {"allow": [2, 3]}}, [0, 2, 3]),
        ({"score": {"allow": ["2", "3"]}, "is_scene": {"deny": [True]}}, [0, 3]),
        ({"is_multi_object": {"deny": ["true"]}}, [0, 2, 3, 4, 5]),
        ({"is_multi_object": {"deny": ["true", "unknown"]}}, [0, 2, 3]),
        ({"score": {"allow": [0]}}, [1]),
        ({"style": {"allow": ["scan*"]}, "licence": {"allow": ["CC0*"]}}, [2, 3]),
    ],
)
def test_who_takes_part(tmp_path, rules, expected, caplog):
    """Objects 4 and 5 have no row: an allow list leaves them out, a deny list keeps them."""
    folder = write_dataset(tmp_path / "set", train=(3, 3), val=())
    labels = write_labels(tmp_path / "labels.json")
    with caplog.at_level(logging.INFO):
        source = ShardSource(folder, filters=Filters(rules, labels), cache_dir=tmp_path / "cache")
    found = [source.load(*source.locate(i)).uid for i in range(source.num_objects)]
    assert found == [f"object-{i:03d}" for i in expected]
    assert f"4 of 6 have a row in {labels} (without one, an allow list leaves an object out" in caplog.text


def test_labels_come_from_the_command_line(tmp_path):
    folder = write_dataset(tmp_path / "set", train=(3, 3), val=())
    labels = write_labels(tmp_path / "labels.csv")
    cfg = composed(f"data.path={folder}", f"data.labels={labels}", f"data.cache_dir={tmp_path}",
                   "+data.filters.score.allow=[2,3]", "+data.filters.is_scene.deny=[true]")  # fmt: skip
    assert build_datamodule(cfg).make_source(split=None).num_objects == 2


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", "name,score\nx,1\n", r"needs a column `uid`; it has name, score"),
        ("a.csv", "uid,score\n", r"a.csv has no row"),
        ("a.csv", "uid\na\n", r"or no column but uids"),
        ("a.json", "[1, 2]", r"a.json cannot be read: a row is not a table of columns"),
        ("a.json", "{", r"a.json cannot be read"),
        ("a.jsonl", '{"uid": "a"}\n{', r"a.jsonl cannot be read"),
        ("a.txt", "a", r"must be one of .csv .tsv .json .jsonl .parquet"),
        ("a.csv", "uid,style\na,x\n", r"have no effect: no filter names one of its columns style"),
    ],
)
def test_labels_that_are_none(tmp_path, name, content, match):
    (tmp_path / name).write_text(content)
    folder = write_dataset(tmp_path / "set", train=(1,), val=())
    with pytest.raises(ValueError, match=match):
        ShardSource(folder, filters=Filters({"score": {"allow": [1]}}, tmp_path / name))
    with pytest.raises(FileNotFoundError, match="is not a file"):
        Filters({"score": {"allow": [1]}}, tmp_path / "gone.csv")


def pack_with(renders: Path, out: Path, *options: str) -> list[dict]:
    assert pack.main([str(renders), "--out", str(out), "--workers", "1", *options]) == 0
    return [json.loads(line) for line in (out / "objects.jsonl").read_text().splitlines()]


@pytest.fixture
def renders(tmp_path) -> Path:
    return make_renders(tmp_path / "renders", [f"object-{i:03d}" for i in range(6)])


def test_pack_leaves_out_by_labels_and_packs_them(renders, tmp_path, capsys):
    labels = write_labels(tmp_path / "labels.json")
    options = ("--labels", str(labels), "--filter", "score=2,3", "--filter", "is_scene!=true")
    packed = pack_with(renders, tmp_path / "out", *options)
    assert {line["uid"] for line in packed} == {"object-000", "object-003"}
    assert all(
        line["author"] == "Ann" and line["score"] in "23" and line["is_scene"] == "false" for line in packed
    )
    output = capsys.readouterr().out
    assert f"4 of 6 objects have a row in {labels}; without one a label is `unknown`" in output
    assert "object 'object-002': its is_scene is 'true', which --filter leaves out" in output
    assert "object 'object-004': its score is 'unknown', which --filter leaves out" in output
    # What was packed serves training without the file.
    assert (
        ShardSource(tmp_path / "out", filters=Filters({"style": {"allow": ["realistic"]}})).num_objects == 1
    )


def test_a_pack_goes_on_with_the_same_labels_alone(renders, tmp_path):
    labels = write_labels(tmp_path / "labels.json")
    options = ("--labels", str(labels), "--filter", "score=2,3")
    pack_with(renders, tmp_path / "out", *options)
    pack_with(renders, tmp_path / "out", *options)
    with pytest.raises(ValueError, match="rules"):
        pack_with(renders, tmp_path / "out", "--labels", str(labels), "--filter", "score=3")
    with pytest.raises(ValueError, match=r"rules|labels"):
        pack_with(renders, tmp_path / "out")
    labels.write_text(json.dumps(ROWS[:2]))
    with pytest.raises(ValueError, match="labels"):
        pack_with(renders, tmp_path / "out", *options)


def test_a_pack_of_before_goes_on(renders, tmp_path):
    pack_with(renders, tmp_path / "out")
    state = tmp_path / "out" / ".pack.json"
    begun = json.loads(state.read_text())
    state.write_text(
        json.dumps({key: value for key, value in begun.items() if key not in ("rules", "labels")})
    )
    assert len(pack_with(renders, tmp_path / "out")) == 6


def test_labels_are_packed_without_a_filter_too(renders, tmp_path):
    packed = pack_with(renders, tmp_path / "out", "--labels", str(write_labels(tmp_path / "labels.json")))
    assert len(packed) == 6 and {line["uid"] for line in packed if "style" in line} == {
        row["UID"] for row in ROWS[:4]
    }


@pytest.mark.parametrize("rule", ["score", "=2", "score=", "!=true"])
def test_rules_that_are_none(renders, tmp_path, rule):
    with pytest.raises(ValueError, match="must be <field>=<values> or <field>!=<values>"):
        pack_with(renders, tmp_path / "out", "--filter", rule)
