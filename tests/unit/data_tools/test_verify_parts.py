"""verify on several machines, and after a kill: what is checked is not checked again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from data_tools.pack import command as pack
from data_tools.verify import command as verify
from data_tools.verify.records import ShardReport
from tests.unit.data_tools.test_data_tools_shards import make_renders


@pytest.fixture
def folder(tmp_path) -> Path:
    renders = make_renders(tmp_path / "renders", [f"object-{i}" for i in range(12)])
    out = tmp_path / "set"
    command = [
        str(renders),
        "--out",
        str(out),
        "--workers",
        "1",
        "--shard-mb",
        "0.01",
        "--format",
        "rendered",
    ]
    assert pack.main(command) == 0
    return out


@pytest.fixture
def checked(monkeypatch) -> list[str]:
    """Names of the shards that are read."""
    names: list[str] = []
    check = verify.check_shard
    monkeypatch.setattr(verify, "check_shard", lambda *a: names.append(a[-1].name) or check(*a))
    return names


def run(folder: Path, *options: str) -> int:
    return verify.main([str(folder), "--workers", "1", "--no-reprojection", *options])


class Killed(BaseException):
    """Stands for the end of the process at an exact place."""


def test_a_run_goes_on_after_a_kill(folder, checked, monkeypatch, capsys):
    assert run(folder) == 0
    whole, names = capsys.readouterr().out, checked[:]
    assert len(names) >= 4 and not (folder / ".verify").exists()
    check = verify.check_shard

    def killed(*arguments):
        if len(checked) == len(names) + 3:
            raise Killed
        return check(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(verify, "check_shard", killed)
        with pytest.raises(Killed):
            run(folder)
    checked.clear()
    capsys.readouterr()
    assert run(folder) == 0
    assert checked == names[3:]
    assert capsys.readouterr().out == f"3 of {len(names)} shards were checked before\n{whole}"
    assert not (folder / ".verify").exists()


def test_parts_cover_the_set_and_the_whole_reads_their_records(folder, checked, capsys):
    assert run(folder) == 0
    whole, names = capsys.readouterr().out, checked[:]
    checked.clear()
    for part in ("1/3", "2/3", "3/3"):
        assert run(folder, "--part", part) == 0
        assert f"part {part}: " in capsys.readouterr().out
    assert sorted(checked) == names
    checked.clear()
    assert run(folder) == 0
    assert checked == [] and capsys.readouterr().out.splitlines()[-1] == whole.splitlines()[-1]


def test_a_shard_that_changed_since_is_read_again(folder, checked, capsys):
    assert run(folder, "--part", "1/1") == 0
    checked.clear()
    shard = sorted(folder.glob("*.tar"))[1]
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    before = shard.stat()
    shard.write_bytes(content)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    capsys.readouterr()
    assert run(folder) == 1
    assert checked == [shard.name] and "its sha256 is not the one in index.json" in capsys.readouterr().out


def test_faults_of_a_part_are_said_again_by_the_whole(folder, checked, capsys):
    shard = sorted(folder.glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-1024])
    assert run(folder, "--part", "1/2") == 1
    fault = capsys.readouterr().out.splitlines()[0]
    assert run(folder, "--part", "2/2") == 0
    capsys.readouterr()
    checked.clear()
    assert run(folder) == 1
    assert checked == [] and fault in capsys.readouterr().out


def test_other_options_do_not_use_a_record(folder, checked):
    assert run(folder, "--part", "1/1") == 0
    checked.clear()
    assert verify.main([str(folder), "--workers", "1"]) == 0
    assert checked


def test_a_folder_that_may_only_be_read_is_checked_without_records(folder, monkeypatch, capsys):
    monkeypatch.setattr(verify.os, "access", lambda path, mode: path != folder)
    assert run(folder, "--part", "1/1") == 0
    assert not (folder / ".verify").exists() and "may only be read" in capsys.readouterr().err


def test_a_table_is_written_where_there_is_none(folder, capsys):
    table = folder / "objects.jsonl"
    text = table.read_text()
    with pytest.raises(ValueError, match=r"--write-table: there is .*objects.jsonl; remove it first"):
        run(folder, "--write-table")
    table.unlink()
    with pytest.raises(ValueError, match="--write-table: is for the whole set"):
        run(folder, "--write-table", "--part", "1/2")
    assert run(folder, "--write-table") == 0
    assert table.read_text() == text


def test_a_report_survives_its_record():
    report = ShardReport(("a", "é\udcff"), ('{"uid": "a"}\n',), 3, ("fault",), 1)
    report.tally.mistakes["flipped"] += 2
    assert ShardReport.from_json(report.to_json()) == report
    assert json.loads(report.to_json())["num_images"] == 3
