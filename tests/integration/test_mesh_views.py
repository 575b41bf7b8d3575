"""evaluate.py from a mesh to Gaussians, through exact views in either projection."""

import json
import logging
from functools import partial

import pytest

from lgm.cli.evaluate import evaluate
from lgm.gaussians.ply import load_ply
from lgm.meshing import save_mesh
from tests.integration.running import composed, run_script, run_train
from tests.unit.multiview.test_mesh_views import box


@pytest.fixture(scope="module")
def ckpt(dataset, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    run_train(dataset, run_dir, "train.max_steps=2")
    return run_dir / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    save_mesh(box(), folder / "box.glb")
    return folder


def options(folder, run_dir, ckpt, *more: str) -> list[str]:
    return [
        "data=prompts", 'data.prompts=["box"]', "data/background=keep", "multiview=mesh_views",
        f"multiview.folder={folder}", "multiview.size=64", f"run_dir={run_dir}", f"ckpt={ckpt}",
        "trainer=cpu", "callbacks.progress=null", "callbacks.measure.lpips=null", *more,
    ]  # fmt: skip


def test_a_mesh_becomes_gaussians_through_orthographic_views(ckpt, folder, tmp_path):
    evaluate(composed("evaluate", *options(folder, tmp_path, ckpt, "multiview.projection=orthographic")))
    assert load_ply(tmp_path / "objects" / "box" / "gaussians.ply").means.isfinite().all()
    record = json.loads((tmp_path / "objects" / "box" / "generated" / "generation.json").read_text())
    assert record["cameras"]["projection"] == "orthographic" and record["cameras"]["posed"]
    assert list(record["generator"]["meshes"]) == ["box.glb"]


@pytest.mark.slow
def test_views_are_made_again_where_the_projection_differs_and_nowhere_else(ckpt, folder, tmp_path, caplog):
    run = partial(options, folder, tmp_path, ckpt)
    evaluate(composed("evaluate", *run("multiview.projection=orthographic")))
    with caplog.at_level(logging.INFO):
        evaluate(composed("evaluate", *run("multiview.projection=orthographic")))
        assert "generating views" not in caplog.text
        evaluate(composed("evaluate", *run()))
        assert "generating views of box" in caplog.text
    assert load_ply(tmp_path / "objects" / "box" / "gaussians.ply").means.isfinite().all()


@pytest.mark.slow
def test_a_name_of_no_mesh_is_one_line(ckpt, folder, tmp_path):
    result = run_script("evaluate.py", *options(folder, tmp_path / "out", ckpt), 'data.prompts=["chair"]')
    assert result.returncode == 2 and "names no mesh" in result.stderr
    assert "Traceback" not in result.stderr
