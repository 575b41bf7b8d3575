"""Objects chosen by their metadata, with and without a table of it."""

import gzip
import io
import json
import logging
import shutil
import tracemalloc

import pytest

from data_tools.pack import command as pack
from data_tools.verify import command as verify
from lgm.cli.build import build_datamodule
from lgm.data.schema.sample import table_line
from lgm.data.sources.filters import Filters
from lgm.data.sources.shards import ShardSource
from lgm.data.transport import urls
from lgm.data.transport.compressed import Compressed
from tests.datasets import sample_files, write_index, write_shard
from tests.unit.cli.test_configs import composed
from tests.unit.data_tools.test_data_tools_shards import make_renders

OBJECTS = [  # licence, category
    ("CC0-1.0", "chair"),
    ("CC-BY-4.0", "chair"),
    ("CC-BY-NC-4.0", "table"),
    (None, "lamp"),
    ("CC0-1.0", "Lamp"),
    ("CC0-1.0", "table"),
]


@pytest.fixture(params=["with a table", "without a table"])
def folder(request, tmp_path):
    shards, lines = [], []
    for number in range(2):
        objects = []
        for i, (licence, category) in list(enumerate(OBJECTS))[3 * number : 3 * number + 3]:
            uid = f"object-{i}"
            metadata = {"uid": uid, "licence": licence, "category": category, "source": f"test#{i}"}
            objects.append({**sample_files(uid, i), f"{uid}.json": json.dumps(metadata).encode()})
            lines.append(table_line(f"all-{number:06d}.tar", uid, metadata))
        shards.append(write_shard(tmp_path / "set" / f"all-{number:06d}.tar", objects))
    write_index(tmp_path / "set", shards)
    if request.param == "with a table":
        (tmp_path / "set" / "objects.jsonl").write_text("".join(lines))
    return tmp_path / "set"


def uids(folder, cache, **rules) -> list[int]:
    source = ShardSource(folder, cache_dir=cache, filters=Filters(rules))
    found = [source.load(*source.locate(i)).uid for i in range(source.num_objects)]
    return [int(uid.removeprefix("object-")) for uid in found]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"licence": {"allow": ["CC0-1.0"]}}, [0, 4, 5]),
        ({"licence": {"allow": ["cc0*", "CC-BY-4.0"], "deny": None}}, [0, 1, 4, 5]),
        ({"licence": {"deny": ["*-NC-*", "unknown"]}}, [0, 1, 4, 5]),
        ({"licence": {"allow": ["CC0-1.0"]}, "category": {"deny": ["lamp"]}}, [0, 5]),
        ({"source": {"allow": ["test#[23]"]}}, [2, 3]),
    ],
)
def test_who_takes_part(folder, tmp_path, rules, expected):
    assert uids(folder, tmp_path / "cache", **rules) == expected


def test_one_line_says_how_many_remain_and_why(folder, tmp_path, caplog):
    rules = {"licence": {"allow": ["CC0-1.0"]}, "category": {"deny": ["lamp"]}}
    with caplog.at_level(logging.INFO):
        uids(folder, tmp_path / "cache", **rules)
    assert "2 of 6 objects remain of" in caplog.text
    assert "licence left out 3, category left out 1" in caplog.text


def test_nothing_left_names_the_filter_and_what_there_is(folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"none of the 6 objects .* data.filters.licence: allow \['mit'\]"
    ) as e:
        uids(folder, tmp_path, licence={"allow": ["MIT"]})
    assert "'CC0-1.0' (3)" in str(e.value) and "'unknown' (1)" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_set_without_a_table_is_read_once(folder, tmp_path, caplog):
    (folder / "objects.jsonl").unlink(missing_ok=True)
    rules = {"licence": {"allow": ["CC0-1.0"]}}
    for _ in range(2):
        assert uids(folder, tmp_path / "cache", **rules) == [0, 4, 5]
    assert caplog.text.count("reading its 2 shards once") == 1


def test_a_table_that_does_not_fit_the_shards(folder, tmp_path):
    table = folder / "objects.jsonl"
    for text, message in (
        ('{"uid": "a"}\n', "line 1 needs a shard and a uid"),
        (
            '{"uid": "a", "shard": "all-000000.tar"}\n',
            "has 1 objects of shard .* index.json says 3",
        ),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            uids(folder, tmp_path, licence={"allow": ["CC0-1.0"]})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"licence": {"allow": "CC0-1.0"}}, r"data.filters.licence.allow='CC0-1.0' must be a list"),
        ({"licence": {"allow": []}}, r"must be a list"),
        ({"licence": {"allowed": ["x"]}}, r"data.filters.licence.allowed: a filter has allow and deny"),
    ],
)
def test_rules_that_are_none(rules, message):
    with pytest.raises(ValueError, match=message):
        Filters(rules)


def test_filters_come_from_the_command_line(folder, tmp_path):

    cfg = composed(
        f"data.path={folder}", f"data.cache_dir={tmp_path}", "data.filters.licence.allow=[CC0-1.0]"
    )
    assert build_datamodule(cfg).make_source(split=None).num_objects == 3


def test_pack_writes_the_table_and_verify_reads_it(tmp_path, capsys):
    renders = make_renders(tmp_path / "renders", [f"object-{i}" for i in range(7)])
    out = tmp_path / "out"
    arguments = [str(renders), "--out", str(out), "--workers", "1", "--shard-mb", "0.01"]
    assert pack.main([*arguments, "--splits", "train=0.6,val=0.4"]) == 0
    assert verify.main([str(out), "--workers", "1"]) == 0
    there = uids(out, tmp_path / "cache", author={"allow": ["Ann"]})
    shutil.copy(out / "objects.jsonl", tmp_path)
    (out / "objects.jsonl").unlink()
    assert there == uids(out, tmp_path / "cache", author={"allow": ["Ann"]}) and len(there) == 7
    (own,) = (tmp_path / "cache" / "tables").glob("*.jsonl")
    assert own.read_text() == (tmp_path / "objects.jsonl").read_text()
    (out / "objects.jsonl").write_text(own.read_text().replace("Ann", "Bob"))
    capsys.readouterr()
    assert verify.main([str(out), "--workers", "1"]) == 1
    assert capsys.readouterr().out.startswith("objects.jsonl: differs from what the shards hold")


def test_without_a_table_a_line_says_what_that_costs_and_how_to_make_one(
    folder, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(urls, "_PAUSES_S", (0.01,))  # what `cat` has not is asked for again
    (folder / "objects.jsonl").unlink(missing_ok=True)
    uids(folder, tmp_path / "near", licence={"allow": ["CC0-1.0"]})
    assert "each machine reads the headers and the metadata" in caplog.text
    caplog.clear()
    uids(f"pipe:cat {folder}/{{}} 2>/dev/null", tmp_path / "far", licence={"allow": ["CC0-1.0"]})
    assert "each machine downloads all of its" in caplog.text
    assert "python -m data_tools.verify <folder> --write-table" in caplog.text


def test_a_table_from_afar_is_kept_compressed(folder, tmp_path):
    lines = [
        table_line(f"all-{i // 3:06d}.tar", f"object-{i}", {"uid": f"object-{i}", "licence": licence})
        for i, (licence, _) in enumerate(OBJECTS)
    ]
    (folder / "objects.jsonl").write_text("".join(lines))
    rules = {"licence": {"allow": ["CC0-1.0"]}}
    for _ in range(2):
        assert uids(f"pipe:cat {folder}/{{}}", tmp_path / "cache", **rules) == [0, 4, 5]
        (kept,) = (tmp_path / "cache" / "tables").glob("*.gz")
        assert gzip.decompress(kept.read_bytes()).decode() == "".join(lines)
        (folder / "objects.jsonl").unlink(missing_ok=True)  # asked for once


def test_a_download_that_breaks_off_goes_on_in_a_compressed_file(tmp_path):
    path, content = tmp_path / "a.gz", bytes(range(256)) * 4000
    with Compressed(path) as file:
        file.write(content[:1000])
        assert file.seek(0, 2) == file.tell() == 1000  # the range that is asked for next
        file.write(content[1000:5000])
        file.seek(0)
        file.truncate()  # a server that begins anew
        for start in range(0, len(content), 7777):
            file.write(content[start : start + 7777])
        with pytest.raises(io.UnsupportedOperation):
            file.seek(5)
    assert gzip.decompress(path.read_bytes()) == content and path.stat().st_size < len(content) / 50


def test_what_is_held_of_a_long_table_is_small(tmp_path, monkeypatch):
    """A million rows of half a kilobyte: some bytes each, whatever they say."""
    rows = 20_000
    shard = {"name": "a.tar", "samples": rows, "bytes": rows * 1024, "sha256": "0" * 64}
    (tmp_path / "set").mkdir()
    write_index(tmp_path / "set", [shard])
    with (tmp_path / "set" / "objects.jsonl").open("w") as file:
        for i in range(rows):
            file.write(
                table_line(
                    "a.tar", f"o{i}", {"licence": "CC0-1.0", "author": f"author {i}", "text": "x" * 400}
                )
            )
    ShardSource(tmp_path / "set", filters=Filters({"licence": {"allow": ["MIT", "CC0-1.0"]}}))
    tracemalloc.start()
    source = ShardSource(tmp_path / "set", filters=Filters({"licence": {"allow": ["CC0-1.0"]}}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.num_objects == rows and peak < 40 * rows
