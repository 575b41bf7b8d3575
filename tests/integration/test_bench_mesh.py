"""scripts/bench/mesh.py runs, and what it prints is what it measured."""

import json
import runpy
import sys
from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image

from lgm.gaussians.ply import save_ply
from lgm.meshing.refine import RefinementSettings
from tests.integration.running import ROOT
from tests.meshes import flat_gaussians, sphere

pytest.importorskip("fast_simplification")


def run(arguments: str, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", arguments.split())
    runpy.run_path(str(ROOT / "scripts/bench/mesh.py"), run_name="__main__")


def test_a_file_is_converted_and_measured_without_and_with_refinement(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    ply, images, numbers = (tmp_path / name for name in ("ball.ply", "mesh.png", "mesh.json"))
    save_ply(flat_gaussians(sphere(0.5), 300), ply)
    quick = RefinementSettings(steps=300, num_views=4, views_per_step=1, size=48)
    monkeypatch.setattr(RefinementSettings, "for_device", classmethod(lambda cls, device: quick))
    arguments = f"mesh.py {ply} --quick --device cpu --faces 400 --texture 64 --size 32 --views 6"
    arguments += f" --images {images} --json {numbers} --refinement steps=4 texture_rate=0.05"
    run(arguments, monkeypatch)
    plain, refined = json.loads(numbers.read_text())
    assert [plain["refined"], refined["refined"]] == [False, True]
    assert plain["psnr"] > 15 and refined["psnr"] > 15 and plain["watertight"]
    assert list(refined["stages"])[-2:] == ["refine", "write"] and "refine" not in plain["stages"]
    assert plain["refinement"] is None
    settings = json.dumps(asdict(replace(quick, steps=4, texture_rate=0.05)))
    assert refined["refinement"] == json.loads(settings)  # tuples are lists there
    assert Image.open(images).size == (6 * 32, 3 * 32)
    assert plain["processor_seconds"] > 0 and refined["processor_seconds"] > 0
    printed = capsys.readouterr().out
    assert f"unrefined psnr={plain['psnr']:.2f}" in printed
    assert f"median of 1 refined: psnr={refined['psnr']:.2f} (least {refined['psnr']:.2f})" in printed


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("step=800", "'step' is not a setting of refinement; those are steps, num_views"),
        ("steps=many", "steps=many: invalid literal"),
        ("steps=0", "steps=0 must be at least 1"),
        ("steps", "steps: invalid literal"),
    ],
)
def test_a_wrong_setting_of_refinement_is_refused_before_any_work(setting, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit:
        run(f"mesh.py missing.ply --refinement {setting}", monkeypatch)
    assert exit.value.code == 2 and message in capsys.readouterr().err
