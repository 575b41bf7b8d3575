"""Parts of a rendering: processes here, submitit's own executors, and what Slurm would be told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")
pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")

import trimesh

from data_tools.engines import EngineUnavailable, make_engine
from data_tools.render import command as render
from data_tools.render import launcher
from data_tools.render.launcher import Call, launcher_parser, own_arguments, submit


@pytest.fixture(scope="module")
def meshes(tmp_path_factory) -> Path:
    try:
        make_engine("opengl").close()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("meshes")
    for number in range(5):
        trimesh.creation.box((1, 1, 1 + number)).export(folder / f"box{number}.ply")
    return folder


def arguments(meshes: Path, out: Path) -> list[str]:
    return [str(meshes), "--out", str(out), "--resolution", "16", "--views", "4", "--workers", "1"]


def rendered(out: Path) -> set[str]:
    return {path.parent.name for path in out.glob("*/cameras.json")}


ALL = {f"box{number}" for number in range(5)}


def slurm_options(*options: str):
    return launcher_parser().parse_args(["--launcher", "slurm", "--parts", "3", *options])


def test_parts_here_render_everything_once(meshes, tmp_path, capsys):
    out = tmp_path / "renders"
    assert render.main([*arguments(meshes, out), "--launcher", "local", "--parts", "2"]) == 0
    assert rendered(out) == ALL
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["part 1", "part 2"]
    assert sum(int(line.split()[2]) for line in lines) == 5
    reports = sorted(out.glob("report-*-of-2.jsonl"))
    uids = [json.loads(line)["uid"] for path in reports for line in path.read_text().splitlines()]
    assert sorted(uids) == sorted(ALL)
    assert len(list((out / ".launcher").glob("part-*.log"))) == 2


def test_a_part_that_fails_is_named(meshes, tmp_path, capsys):
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "a.obj").write_text("")
    out = tmp_path / "renders"
    assert render.main([*arguments(tmp_path / "meshes", out), "--launcher", "local", "--parts", "2"]) == 1
    said = capsys.readouterr().out
    assert said.count("(exit code 1; ") == 1 and "0 rendered, 0 complete before, 0 failed" in said


def test_submitit_runs_the_parts(meshes, tmp_path, capsys, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is missing; pip install 'lgm-training[cluster]'")
    monkeypatch.setenv("PYTHONPATH", str(Path(render.__file__).parents[2]))
    out = tmp_path / "renders"
    calls = [Call("data_tools.render", (*arguments(meshes, out), "--part", f"{k}/2")) for k in (1, 2)]
    options = slurm_options("--slurm-wait", "--slurm-cpus", "1", "--slurm-mem-gb", "1")
    assert submit(calls, tmp_path / "logs", options, cluster="local") == 0
    assert rendered(out) == ALL
    said = capsys.readouterr().out
    assert "part 1: done" in said and "part 2: done" in said
    broken = [Call("data_tools.render", (*arguments(tmp_path / "nothing", out), "--part", "1/1"))]
    assert submit(broken, tmp_path / "logs", options, cluster="local") == 1
    assert "part 1: failed: " in capsys.readouterr().out


def test_a_part_cut_off_is_queued_again():
    submitit = pytest.importorskip(
        "submitit", reason="submitit is missing; pip install 'lgm-training[cluster]'"
    )
    part = Call("data_tools.render", ("a", "--part", "1/2"))
    again = part.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.function == part


def test_what_slurm_is_told(meshes, tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit", reason="submitit is missing; pip install 'lgm-training[cluster]'")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "srun").write_text("#!/bin/sh\n")
    (tools / "sbatch").write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/job.sh\necho Submitted batch job 77\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    out = tmp_path / "renders"
    own = [a for a in arguments(meshes, out) if a not in ("--workers", "1")]
    chosen = ["--parts", "4", "--slurm-partition", "cpu", "--slurm-account", "lab", "--slurm-cpus", "6"]
    assert render.main([*own, "--launcher", "slurm", *chosen, "--slurm-at-once", "2"]) == 0
    assert "4 parts as jobs 77_0 to 77_3" in capsys.readouterr().out
    script = (tmp_path / "job.sh").read_text()
    for line in ("--array=0-3%2", "--partition=cpu", "--account=lab", "--cpus-per-task=6", "--mem=64GB"):
        assert f"#SBATCH {line}" in script
    assert not rendered(out) and (out / "render.json").is_file()
    import cloudpickle

    (first, *others) = sorted((out / ".launcher").glob("*_submitted.pkl"))
    assert len(others) == 3
    part = cloudpickle.loads(first.read_bytes()).function
    assert part.arguments[-4:] == ("--workers", "3", "--part", "1/4")
    assert not any(text.startswith(("--slurm", "--launcher", "--parts")) for text in part.arguments)
    (tools / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: cpu' >&2; exit 1\n")
    with pytest.raises(ValueError, match=r"sbatch refused: .*invalid partition specified: cpu"):
        render.main([*own, "--launcher", "slurm", *chosen])


def test_the_parts_do_not_get_the_launchers_options():
    text = "m --out o --launcher slurm --parts 9 --slurm-partition=cpu --slurm-wait --views 8"
    assert own_arguments(text.split()) == ["m", "--out", "o", "--views", "8"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--parts", "3"), "--parts 3 needs --launcher local or slurm"),
        (("--launcher", "local"), "--launcher local needs --parts, 1 or more; got None"),
        (("--launcher", "local", "--parts", "2", "--part", "1/2"), "--part 1/2 and --launcher exclude"),
        (("--launcher", "slurm", "--parts", "2", "--slurm-cpus", "0"), "--slurm-cpus 0 must be at least 1"),
    ],
)
def test_a_persons_mistake_is_one_line(meshes, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        render.main([*arguments(meshes, tmp_path / "renders"), *options])


def test_a_missing_submitit_or_slurm_is_one_line(meshes, tmp_path, monkeypatch):
    command = [*arguments(meshes, tmp_path / "renders"), "--launcher", "slurm", "--parts", "2"]
    if launcher.importlib.util.find_spec("submitit") is not None:
        monkeypatch.setenv("PATH", "")
        with pytest.raises(ValueError, match=r"--launcher slurm: .*srun.*; run this where sbatch is"):
            render.main(command)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"needs submitit; pip install 'lgm-training\[cluster\]'"):
        render.main(command)
