"""pack on several machines with one result; what is known of the renders is not asked again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from data_tools.pack import command as pack
from data_tools.pack import jobs as pack_jobs
from data_tools.pack import scan as scanning
from data_tools.pack.objects import ObjectReader
from data_tools.shared.partition import parse_part
from data_tools.verify import command as verify
from tests.unit.data_tools.test_data_tools_shards import make_renders

OPTIONS = ("--splits", "train=0.8,val=0.2", "--shard-mb", "0.02", "--lossless", "--workers", "1")


@pytest.fixture(scope="module")
def renders(tmp_path_factory) -> Path:
    made = make_renders(tmp_path_factory.mktemp("renders"), [f"object-{i:03d}" for i in range(24)])
    (made / "object-007" / "view_002.png").unlink()
    return made


@pytest.fixture(scope="module")
def whole(renders, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert pack.main([str(renders), "--out", str(out), *OPTIONS]) == 0
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("order", [("3/3", "1/3", "2/3")])
def test_parts_in_any_order_are_one_pack(renders, whole, tmp_path, capsys, order):
    out = tmp_path / "out"
    for number, part in enumerate(order):
        assert pack.main([str(renders), "--out", str(out), *OPTIONS, "--part", part]) == 0
        assert (out / "index.json").exists() == (number == 2)
    assert contents(out) == whole
    assert "the last part to end writes the index" in capsys.readouterr().out
    assert verify.main([str(out), "--workers", "1"]) == 0
    assert pack.main([str(renders), "--out", str(out), *OPTIONS, "--part", "2/3"]) == 0
    assert "complete before" in capsys.readouterr().out and contents(out) == whole


def test_what_parts_left_is_packed_without_them(renders, whole, tmp_path):
    out = tmp_path / "out"
    assert pack.main([str(renders), "--out", str(out), *OPTIONS, "--part", "2/3"]) == 0
    assert pack.main([str(renders), "--out", str(out), *OPTIONS]) == 0
    assert contents(out) == whole


def test_parts_that_do_not_go_together_are_refused(renders, tmp_path):
    state = pack.PackState(tmp_path)

    def refused(*options: str) -> None:
        with pytest.raises(ValueError, match="another pack is writing"):
            pack.main([str(renders), "--out", str(tmp_path), *OPTIONS, *options])

    with state.locked(parse_part("2/3")):
        refused()
        refused("--part", "2/3")
        refused("--part", "1/2")
        with state.locked(parse_part("1/3")):
            pass
    with state.locked():
        refused("--part", "1/3")
    with pytest.raises(ValueError, match="--part '4/3' must be k/n"):
        pack.main([str(renders), "--out", str(tmp_path), *OPTIONS, "--part", "4/3"])


def test_a_part_leaves_what_others_are_writing(renders, tmp_path):
    out = tmp_path / "out"
    (out).mkdir()
    state = pack.PackState(out)
    with state.locked(parse_part("1/2")), state.without_partial(["train-000000.tar"]):
        other = out / "train-000001.tar.77.partial"
        other.touch()
        with state.without_partial(["train-000000.tar"]):
            assert other.exists()
    assert other.exists()


class Killed(BaseException):
    """Stands for the end of the process at an exact place."""


def test_a_restart_reads_no_object_again_that_did_not_change(renders, whole, tmp_path, monkeypatch):
    out, asked = tmp_path / "out", []
    digest, write = ObjectReader.digest, pack_jobs.write_shard
    monkeypatch.setattr(ObjectReader, "digest", lambda self, uid: asked.append(uid) or digest(self, uid))

    def killed(path, objects):
        if path.name == "train-000001.tar":
            raise Killed
        return write(path, objects)

    with monkeypatch.context() as patch:
        patch.setattr(pack_jobs, "write_shard", killed)
        with pytest.raises(Killed):
            pack.main([str(renders), "--out", str(out), *OPTIONS])
    assert len(asked) == 24
    asked.clear()
    os.utime(renders / "object-003" / "view_001.png")
    with monkeypatch.context() as patch:
        patch.setattr(pack_jobs, "write_shard", killed)
        with pytest.raises(Killed):
            pack.main([str(renders), "--out", str(out), *OPTIONS])
    assert asked == ["object-003"]
    asked.clear()
    assert pack.main([str(renders), "--out", str(out), *OPTIONS]) == 0
    assert asked == [] and contents(out) == whole


@pytest.mark.slow
def test_many_objects_are_asked_by_several_processes(renders, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(scanning, "_FEW", 10)
    monkeypatch.setattr(scanning, "_CHUNK", 7)
    reader = ObjectReader(renders, pack.ImageOptions("webp", None, None), pack.filter_options(
        pack.parse_arguments([str(renders), "--out", str(tmp_path)])))  # fmt: skip
    uids = [f"object-{i:03d}" for i in range(24)]
    alone = scanning.scan(reader, uids, True, {}, 1)
    assert scanning.scan(reader, uids, True, {}, 2) == alone and list(alone) == uids
    scanning.write_scan(tmp_path / "a" / "scan", {"x": 1}, alone)
    assert scanning.read_scan(tmp_path / "a" / "scan", {"x": 1}) == alone
    assert scanning.read_scan(tmp_path / "a" / "scan", {"x": 2}) == {}
    (tmp_path / "a" / "scan").write_text('{"x": 1}\n{"uid": "a"')
    assert scanning.read_scan(tmp_path / "a" / "scan", {"x": 1}) == {}
    assert json.loads(whole["index.json"])["shards"]
