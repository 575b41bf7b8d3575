"""Finding meshes, naming objects, catalogues, and workers that may die."""

from __future__ import annotations

import functools
import json
import multiprocessing
import operator
import os
import signal
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_tools import sweethome3d
from data_tools.download.lists import read_url_rows
from data_tools.pack.filters import read_words
from data_tools.shared import worker_pool
from data_tools.shared.naming import is_uid, make_uid
from data_tools.shared.sources import find_meshes, read_metadata
from data_tools.shared.splits import read_assignment
from data_tools.shared.worker_pool import Lost, WorkerUnavailable, run_tasks
from tests.clock import GIVE_UP_S, FakeClock


def test_uids_have_no_dots_or_slashes_and_stay_apart():
    assert make_uid("0a1b2c.glb") == "0a1b2c"
    names = ["a/b.obj", "a_b/.obj", "a.b.obj", "a b.obj", "ä.obj", "x" * 300 + ".obj"]
    uids = [make_uid(name) for name in names]
    assert all(is_uid(uid) for uid in uids) and len(set(uids)) == len(uids)


def test_folders_and_lists_are_searched_in_a_fixed_order(tmp_path):
    for name in ("b/z.OBJ", "b/a.glb", "a.ply", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [s.relative for s in find_meshes([str(tmp_path)])] == ["a.ply", "b/a.glb", "b/z.OBJ"]
    (tmp_path / "list.txt").write_text("# chosen\n\nb/a.glb\n")
    (found,) = find_meshes([str(tmp_path / "list.txt")])
    assert found.path == tmp_path / "b/a.glb"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_files_of_a_person_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    """As Windows' editors and PowerShell write them: lists, sidecars, splits, words, URLs."""

    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
        return tmp_path / name

    (tmp_path / "Stühle").mkdir()
    for name in ("椅子.glb", "Stühle/a.ply"):
        (tmp_path / name).touch()
    meshes = written("list.txt", "椅子.glb\nStühle\\a.ply\n")
    chair, stool = find_meshes([str(meshes)])
    assert chair.path == tmp_path / "椅子.glb" and chair.path.is_file()
    assert (stool.path, stool.relative) == (tmp_path / "Stühle" / "a.ply", "Stühle/a.ply")
    written("椅子.meta.json", '{"author": "王"}')
    assert read_metadata(chair)["author"] == "王"
    assert read_assignment(written("assign.txt", "a train\nb val\n")) == {"a": "train", "b": "val"}
    assert read_words(written("words.txt", "Möbel\nwall\n")) == ("möbel", "wall")
    rows = written("urls.csv", "url,name\nhttps://example.org/a.glb,é\n")
    assert read_url_rows(rows) == [{"url": "https://example.org/a.glb", "name": "é"}]


def test_inputs_that_are_not_there_or_no_meshes(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; give"):
        find_meshes([str(tmp_path / "nothing")])
    (tmp_path / "a.docx").write_text("")
    with pytest.raises(ValueError, match="neither a mesh"):
        find_meshes([str(tmp_path / "a.docx")])


def test_sidecar(tmp_path):
    (tmp_path / "a.obj").write_text("")
    (source,) = find_meshes([str(tmp_path)])
    assert read_metadata(source) == {"uid": "a", "source": "a.obj"}
    sidecar = tmp_path / "a.meta.json"
    sidecar.write_text(json.dumps({"uid": "bed", "author": "Ann", "shoe_size": 38}))
    assert read_metadata(source) == {"uid": "bed", "source": "a.obj", "author": "Ann"}
    sidecar.write_text('{"uid": "b.e/d"}')
    with pytest.raises(ValueError, match="letters, digits"):
        read_metadata(source)
    sidecar.write_text("[1")
    with pytest.raises(ValueError, match="no JSON"):
        read_metadata(source)


@pytest.mark.parametrize(("name", "readable"), [
    ("椅子.glb", "YiZi"), ("деревянный стул.obj", "derevyannyy_stul"), ("كرسي.ply", "krsy"),
    ("의자.stl", "UiJa"), ("Café table.glb", "Caf_table"), ("🪑.glb", "object"),
    ("مجلد/a/椅.glb", "mjld_a_Yi"),
])  # fmt: skip
def test_names_of_other_scripts_keep_something_readable(name, readable):
    uid = make_uid(name)
    assert is_uid(uid) and uid.rpartition("-")[0] == readable
    assert is_uid(make_uid("長" * 90 + ".glb"))


def test_catalogue_is_unpacked_turned_and_described(tmp_path, capsys):
    properties = (
        "license=Public domain\nname#1=Caf\\u00e9 \\\n  table\ncreator#1=Ann\nid#1=Set#cafe\n"
        "category#1=Bar\nmodel#1=/m/t/t.obj\nmodelRotation#1=1 0 0 0 0 1 0 -1 0\n"
        "name#2=Old\nmodel#2=/m/o.3ds\n"
    )
    with zipfile.ZipFile(tmp_path / "c.sh3f", "w") as archive:
        archive.writestr(sweethome3d.CATALOGUE_NAME, properties)
        archive.writestr("m/t/t.obj", "mtllib t.mtl\nv 1 2 3 # note\nvn 0 1 0\nf 1 1 1\n")
        archive.writestr("m/t/t.mtl", "newmtl a\n")
    assert sweethome3d.main([str(tmp_path / "c.sh3f"), "--out", str(tmp_path / "out")]) == 0
    assert "1 meshes, 1 skipped" in capsys.readouterr().out
    folder = tmp_path / "out" / "cafe"
    assert (folder / "t.obj").read_text().splitlines()[1:3] == ["v 1 3 -2 # note", "vn 0 0 -1"]
    assert (folder / "t.mtl").is_file()
    metadata = json.loads((folder / "t.meta.json").read_text())
    assert metadata["name"] == "Café table" and metadata["licence"] == "CC0-1.0"
    assert metadata["author"] == "Ann" and metadata["category"] == "Bar"


def _catalogue(path: Path, licence: str, own_licence: str | None = None) -> Path:
    properties = f"license={licence}\nid#1=Maker#bed\nname#1=Bed\nmodel#1=/bed/bed.obj\ncreator#1=Ann\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(sweethome3d.CATALOGUE_NAME, properties)
        archive.writestr("bed/bed.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
        if own_licence is not None:
            archive.writestr("bed/BLENDSWAP_LICENSE.txt", f"By Ann\r\nReleased under\r\n{own_licence}\r\n")
    return path


def test_several_catalogues_with_the_same_id(tmp_path, capsys):
    first = _catalogue(tmp_path / "One.sh3f", "Creative Commons Attribution 3.0 United States license  (c) X")
    own = "Creative Commons Zero (Public Domain)"
    second = _catalogue(tmp_path / "Two.sh3f", "Creative Commons Attribution 3.0 license", own)
    out = tmp_path / "out"
    assert sweethome3d.main([str(first), str(second), "--out", str(out)]) == 0
    assert "2 meshes, 0 skipped" in capsys.readouterr().out
    found = {read_metadata(source)["uid"]: read_metadata(source) for source in find_meshes([str(out)])}
    assert {uid: metadata["licence"] for uid, metadata in found.items()} == {
        "One-bed": "CC-BY-3.0-US",
        "Two-bed": "CC0-1.0",
    }
    with pytest.raises(ValueError, match="'One-bed'; give each catalogue once"):
        sweethome3d.main([str(first), str(first), "--out", str(out)])


def test_licences_by_their_short_names():
    assert sweethome3d.licence_id("Creative Commons Attribution 3.0 Unported license  (c) Y") == "CC-BY-3.0"
    assert sweethome3d.licence_id("Free Art License") == "Free Art License"
    assert sweethome3d.own_licence("nothing of the kind") is None


def test_rotation_needs_nine_numbers():
    np.testing.assert_array_equal(sweethome3d.parse_rotation("1 0 0 0 1 0 0 0 1"), np.eye(3))
    with pytest.raises(ValueError, match="nine numbers"):
        sweethome3d.parse_rotation("1 0 0")


# A task is a function without arguments, and the worker's handler calls it.
CALLER = (operator.methodcaller, ("__call__",))


def test_a_worker_that_dies_or_hangs_costs_one_task(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr("data_tools.shared.worker_pool.time", clock)
    tasks = [
        functools.partial(abs, -1),
        functools.partial(os._exit, 3),
        functools.partial(time.sleep, 10**6),
        functools.partial(abs, -2),
    ]
    wait = worker_pool.wait

    def waited(connections, timeout):
        """By the pool's clock the one that hangs, and no other, takes all the time that it is given."""
        hangs = len(results) == 2 and sent[-1:] == [tasks[2]]
        if hangs:
            clock.sleep(timeout)
        return wait(connections, timeout=0 if hangs else GIVE_UP_S)

    sent, results = [], []
    give = worker_pool._Worker.give
    monkeypatch.setattr(worker_pool._Worker, "give", lambda *a: sent.append(a[1]) or give(*a))
    monkeypatch.setattr(worker_pool, "wait", waited)
    for _, result in run_tasks(iter(tasks), [CALLER], limit_s=90.0):
        results.append(result)
    assert results[0] == 1 and results[3] == 2
    assert isinstance(results[1], Lost) and "exit code 3" in results[1].reason
    assert isinstance(results[2], Lost) and "more than 90 s" in results[2].reason


def test_a_worker_that_cannot_start_ends_the_run():
    with pytest.raises(WorkerUnavailable, match="invalid literal"):
        list(run_tasks(iter([1]), [(int, ("no number",))], limit_s=GIVE_UP_S))


def _kill_workers() -> None:
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def test_a_worker_that_dies_while_idle_costs_nothing():
    def tasks():
        yield functools.partial(abs, -1)
        _kill_workers()  # it has nothing to do: this task was only being looked for
        yield functools.partial(abs, -2)
        yield functools.partial(abs, -3)

    assert [result for _, result in run_tasks(tasks(), [CALLER], limit_s=GIVE_UP_S)] == [1, 2, 3]


def test_a_task_that_a_dying_worker_had_not_read_is_given_to_another():
    def tasks():
        yield functools.partial(abs, -1)
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGSTOP)  # what it is sent now it reads no more
        threading.Timer(0.3, _kill_workers).start()
        yield functools.partial(abs, -2)

    assert [result for _, result in run_tasks(tasks(), [CALLER], limit_s=GIVE_UP_S)] == [1, 2]


def test_workers_that_all_die_while_idle_end_the_run(monkeypatch):
    monkeypatch.setattr("data_tools.shared.worker_pool._MAX_IDLE_DEATHS", 0)

    def tasks():
        _kill_workers()
        yield functools.partial(abs, -1)

    with pytest.raises(WorkerUnavailable, match="1 workers in a row ended before they had a task"):
        list(run_tasks(tasks(), [CALLER], limit_s=GIVE_UP_S))
