"""Runs of data_tools.render beside and after each other, into folders of every kind, over files of every
name: what was drawn from which files, and what is said of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[render]'")

import trimesh

from data_tools.render import command as render
from data_tools.render.worker import make_renderer
from data_tools.shared import renders
from data_tools.shared.identity import CHANGED, OTHER, SAME, compare, describe
from data_tools.shared.notes import kind_of
from data_tools.shared.plan import make_plan
from tests.forked import Forked, run_program

PROGRAM = Path(render.__file__)
ENGINE = "tests.plain_engine.PlainEngine"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Workers do nothing here that this process can't: no Python is started for each."""

    def run_tasks(tasks, recipes, limit_s):
        make, arguments = recipes[0]
        handler = make(*arguments)
        yield from ((task, handler(task)) for task in tasks)

    monkeypatch.setattr(render, "run_tasks", run_tasks)


def run(*inputs: object, out: Path, options: tuple[str, ...] = ()) -> int:
    small = ("--engine", ENGINE, "--resolution", "16", "--views", "4", "--workers", "1")
    return render.main([*map(str, inputs), "--out", str(out), *small, *options])


def box(path: Path, size=(1, 1, 1)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.creation.box(size).export(path)
    return path


def report(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]


def drawn(out: Path, uid: str) -> np.ndarray:
    return np.asarray(Image.open(out / uid / "view_000.png"))


def test_another_mesh_of_the_same_name_is_drawn_too_whether_in_one_run_or_in_two(tmp_path, capsys):
    a, b = box(tmp_path / "a" / "model.glb"), box(tmp_path / "b" / "model.glb", (1, 3, 1))
    out = tmp_path / "r"
    assert run(a.parent, out=out) == 0 and run(b.parent, out=out) == 0
    assert "1 rendered, 0 complete before, 0 failed" in capsys.readouterr().out.splitlines()[-1]
    (second,) = (line["uid"] for line in report(out) if line["uid"] != "model")
    assert (
        second.startswith("model-") and f"is taken by {a}; drawn as {second!r}" in report(out)[-1]["notes"][0]
    )
    assert not np.array_equal(drawn(out, "model"), drawn(out, second))
    assert run(b.parent, a.parent, out=out) == 0
    assert "0 rendered, 2 complete before, 0 failed" in capsys.readouterr().out
    assert run(a, b, a, out=tmp_path / "both") == 0
    assert {line["uid"] for line in report(tmp_path / "both")} == {"model", second}


def test_a_uid_of_a_sidecar_that_is_taken_is_refused(tmp_path, capsys):
    for folder, size in (("a", (1, 1, 1)), ("b", (1, 3, 1))):
        box(tmp_path / folder / "model.glb", size)
        (tmp_path / folder / "model.meta.json").write_text('{"uid": "chosen"}')
    out = tmp_path / "r"
    assert run(tmp_path / "a", out=out) == 0 and run(tmp_path / "b", out=out) == 1
    assert (
        f"failed chosen: uid 'chosen' is taken already by {tmp_path}/a/model.glb" in capsys.readouterr().out
    )


def test_a_mesh_that_was_moved_or_touched_is_the_same_and_one_that_was_changed_is_drawn_again(
    tmp_path, capsys
):
    path, out = box(tmp_path / "a" / "model.ply"), tmp_path / "r"
    assert run(path, out=out) == 0
    os.utime(path, (1, 1))
    assert run(path, out=out) == 0
    shutil.move(path.parent, tmp_path / "moved")
    assert run(tmp_path / "moved", out=out) == 0
    assert capsys.readouterr().out.count("0 rendered, 1 complete before") == 2
    before = drawn(out, "model")
    box(tmp_path / "moved" / "model.ply", (1, 3, 1))
    assert run(tmp_path / "moved", out=out) == 0
    assert report(out)[-1]["notes"] == ["its files have changed; drawn again"]
    assert not np.array_equal(before, drawn(out, "model"))


OBJ = "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nusemtl p\n"
OBJ += "f 1/1 2/2 3/3\nf 1/1 3/3 4/1\n"


def test_a_library_or_texture_that_comes_or_is_mended_draws_its_object_again(tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "r"
    folder.mkdir()
    (folder / "a.obj").write_text(OBJ)
    box(folder / "other.ply")
    said = []
    for name, content in ((None, None), ("m.mtl", "newmtl p\nmap_Kd t.png\n"), ("t.png", None),
                          ("t.png", (0, 0, 255)), ("m.mtl", "newmtl p\nKd 0 1 0\n")):  # fmt: skip
        if content and name == "m.mtl":
            (folder / name).write_text(content)
        elif name == "t.png":
            Image.new("RGB", (4, 4), content or (255, 0, 0)).save(folder / name)
        assert run(folder, out=out) == 0
        said.append(capsys.readouterr().out.splitlines()[-1])
    colors = ["2 rendered", *(["1 rendered, 1 complete before"] * 4)]
    assert [line.startswith(color) for line, color in zip(said, colors, strict=True)] == [True] * 5, said
    assert "1 with notes (missing material file 1, missing material 1), see" in said[0]
    assert drawn(out, "a")[8, 8].argmax() == 1
    assert run(folder, out=out) == 0
    assert "0 rendered, 2 complete before, 0 failed" in capsys.readouterr().out


def test_notes_are_counted_by_kind_on_the_screen(tmp_path, capsys):
    (tmp_path / "m.mtl").write_text("newmtl p\nmap_Kd gone.png\n")
    for name in "abc":
        (tmp_path / f"{name}.obj").write_text(OBJ)
    (tmp_path / "c.obj").write_text(OBJ.replace("v 0 1 0", "v 0 nan 0"))
    assert run(tmp_path, out=tmp_path / "r") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "3 rendered, 0 complete before, 0 failed in" in last
    assert (
        f"; 3 with notes (missing texture 3, NaN vertices 1), see {tmp_path / 'r' / 'report.jsonl'}; " in last
    )


def test_a_note_of_any_words_has_a_kind_without_names_and_numbers():
    assert kind_of("texture 'a b.png' not found; its material's colour is used") == "missing texture"
    assert kind_of("12 of 40 'morph targets' are no 3.5; left out") == "of are no"


@pytest.mark.parametrize("kind", ["file", "below a file", "read-only"])
def test_out_that_cannot_be_written_to_is_one_line(tmp_path, monkeypatch, kind):
    box(tmp_path / "a.ply")
    (tmp_path / "file").write_text("")
    out = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "r"}.get(kind, tmp_path / "r")
    if kind == "read-only":
        monkeypatch.setattr("os.access", lambda *a, **k: False)
    with pytest.raises(ValueError, match=r"^--out .*; give (a|another) folder$"):
        run(tmp_path / "a.ply", out=out)


@pytest.mark.parametrize("tool", ["render", "pack", "adapt"])
def test_out_on_a_file_leaves_every_tool_with_2(tmp_path, tool):
    box(tmp_path / "a.ply")
    assert run(tmp_path / "a.ply", out=tmp_path / "r") == 0
    (tmp_path / "file").write_text("")
    Image.new("RGBA", (8, 8)).save(tmp_path / "000.png")
    np.save(tmp_path / "000.npy", np.eye(4)[:3])
    given = {"render": ["a.ply"], "pack": ["r"], "adapt": [".", "--layout", "zero123"]}[tool]
    done = run_program(PROGRAM.parents[1] / tool / "__main__.py", *given, "--out", "file/x", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: --out file/x lies below file"), done.stderr
    assert done.stderr.count("\n") == 1


def test_two_runs_at_once_share_one_folder(tmp_path):
    for number in range(6):
        box(tmp_path / "in" / f"box{number}.ply", (1, 1 + number, 1))
    out = tmp_path / "r"
    runs = [Forked(lambda: run(tmp_path / "in", out=out)) for _ in range(2)]
    assert [each.wait() for each in runs] == [0, 0], [each.stderr for each in runs]
    for number in range(6):
        assert renders.is_complete(out / f"box{number}", 4)
    assert not list((out / ".partial").iterdir())


def test_the_same_object_finished_by_two_processes_is_whole_and_what_the_dead_left_goes(tmp_path):
    path, plan = box(tmp_path / "a.ply"), make_plan(resolution=16, num_views=4)
    out = tmp_path / "r"
    one, two = (render.RenderTask(path, {"uid": "a"}) for _ in range(2))
    handler = make_renderer(ENGINE, {}, plan, out, "png")
    assert handler(one).fault is None and handler(two).fault is None
    assert renders.is_complete(out / "a", 4) and compare(out / "a", [path]) == SAME
    child = Forked(lambda: None)
    child.wait()
    host = renders.socket.gethostname()
    for name in (f"a.{host}.{child.pid}.00", f"b.{host}.{os.getpid()}.00", f"c.{host}x.{child.pid}.00", "d"):
        (out / ".partial" / name).mkdir(parents=True)
    os.utime(out / ".partial" / "d", (1, 1))
    renders.remove_abandoned(out)
    left = {path.name.partition(".")[0] for path in (out / ".partial").iterdir()}
    assert left == {"b", "c"}  # one is at work, of the other nothing is known


def test_settings_that_two_runs_write_at_once_are_compared(tmp_path, monkeypatch):
    """The other run's appear between the look and the writing."""
    first = {"resolution": 16}
    monkeypatch.setattr(renders, "_write_first", lambda path, text: path.write_text('{"resolution": 32}') < 0)
    with pytest.raises(ValueError, match="rendered with resolution=32, now 16"):
        renders.check_settings(tmp_path, first)


def test_files_of_other_kinds_are_counted_and_those_of_macos_passed_over(tmp_path, capsys):
    box(tmp_path / "in" / "a.ply")
    for name in ("b.fbx", "c.FBX", "d.dae", "e.3mf", "f.usdz", "._a.ply", "._b.fbx", "notes.txt", "t.png"):
        (tmp_path / "in" / name).write_bytes(b"\0")
    box(tmp_path / "in" / "__MACOSX" / "a.ply")
    assert run(tmp_path / "in", out=tmp_path / "r") == 0
    output = capsys.readouterr().out
    assert (
        "5 files of other kinds: .3mf 1, .dae 1, .fbx 2, .usdz 1 (not read; convert them to .glb)" in output
    )
    assert "1 rendered, 0 complete before, 0 failed" in output
    (tmp_path / "list.txt").write_text("in/a.ply\nin/b.fbx\nin/._a.ply\n# in/c.fbx\n")
    assert run(tmp_path / "list.txt", out=tmp_path / "r") == 0
    output = capsys.readouterr().out
    assert "1 files of other kinds: .fbx 1" in output and "1 rendered, 0 complete before, 0 failed" in output


def test_a_record_knows_every_file_that_a_mesh_names(tmp_path):
    (tmp_path / "a.obj").write_text(OBJ.replace("m.mtl", "m.mtl n.mtl"))
    (tmp_path / "m.mtl").write_text("newmtl p\nmap_Kd -s 1 1 t.png\nmap_d lost.png\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "t.png")
    (tmp_path / "a.gltf").write_text('{"buffers": [{"uri": "a%20b.bin"}], "images": [{"uri": "data:,"}]}')
    (tmp_path / "a b.bin").write_bytes(b"")
    (tmp_path / "a.ply").write_bytes(b"ply\r\ncomment TextureFile t.png\r\nend_header\r\n")
    names = {
        suffix: [Path(path).name for path, *_ in describe([tmp_path / f"a.{suffix}"]).files[1:]]
        for suffix in ("obj", "gltf", "ply")
    }
    assert names == {"obj": ["m.mtl", "t.png"], "gltf": ["a b.bin"], "ply": ["t.png"]}
    assert [name for _, name in describe([tmp_path / "a.obj"]).missing] == ["n.mtl", "lost.png"]


def test_what_is_the_same_changed_or_another(tmp_path):
    for name in ("a.ply", "b.ply"):
        (tmp_path / name).write_bytes(b"ply\nend_header\n" + name.encode())
    (tmp_path / "r").mkdir()
    assert compare(tmp_path / "r", [tmp_path / "a.ply"]) == SAME  # an older version's
    (tmp_path / "r" / "source.json").write_text(describe([tmp_path / "a.ply"]).to_json())
    assert compare(tmp_path / "r", [tmp_path / "a.ply"]) == compare(tmp_path / "r") == SAME
    assert compare(tmp_path / "r", [tmp_path / "b.ply"]) == OTHER
    (tmp_path / "a.ply").write_bytes(b"ply\nend_header\nother")
    assert compare(tmp_path / "r", [tmp_path / "a.ply"]) == compare(tmp_path / "r") == CHANGED
    (tmp_path / "a.ply").unlink()
    assert compare(tmp_path / "r", [tmp_path / "a.ply"]) == CHANGED
