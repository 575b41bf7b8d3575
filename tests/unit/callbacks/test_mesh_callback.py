"""callbacks=mesh: files of each object, numbers in metrics.json, images on the report's page."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

pytest.importorskip("fast_simplification")

from PIL import Image

from lgm.callbacks import WriteMesh
from lgm.callbacks.evaluation.mesh import IMAGE_NAME, PACKED_NAME
from lgm.meshing import gaussians_to_mesh
from lgm.meshing.measures import sample_surface
from lgm.meshing.refine import RefinementSettings
from lgm.reports.meshes.packing import MAGIC
from tests.unit.callbacks.test_callbacks import loader, make_batch, make_trainer
from tests.unit.callbacks.test_hooks import DrawingModule
from tests.unit.reports.test_meshes import textured_box

COARSE = {"resolution": 32, "num_views": 12, "size": 48}


def test_each_object_gets_a_mesh_and_its_numbers(tmp_path, monkeypatch):
    coarse = partial(gaussians_to_mesh, **COARSE)
    monkeypatch.setattr("lgm.callbacks.evaluation.mesh.gaussians_to_mesh", coarse)
    (tmp_path / "metrics.json").write_text('{"psnr": 20.0}')
    hook = WriteMesh(faces=500, texture=64, num_views=2, size=32)
    make_trainer(tmp_path, [hook]).test(
        DrawingModule(), loader(make_batch("a"), make_batch("b")), verbose=False
    )
    assert not hook.failed
    for uid in "ab":
        folder = tmp_path / "objects" / uid
        assert (folder / "mesh.glb").read_bytes()[:4] == b"glTF"
        assert Image.open(folder / IMAGE_NAME).width > 6 * 256
        assert (folder / PACKED_NAME).read_bytes()[:4] == MAGIC
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["psnr"] == 20.0
    assert metrics["mesh"]["num_objects"] == 2 and list(metrics["mesh"]["objects"]) == ["a", "b"]
    numbers = metrics["mesh"]["objects"]["a"]
    assert numbers["faces"] <= 500 and numbers["bytes"] == (tmp_path / "objects/a/mesh.glb").stat().st_size
    assert 10 < numbers["psnr"] < 100 and 0 < numbers["ssim"] <= 1 and isinstance(numbers["watertight"], bool)


def test_the_report_turns_a_mesh_about_the_objects_own_up(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lgm.callbacks.evaluation.mesh.gaussians_to_mesh", lambda *args, **kwargs: textured_box()
    )
    batch = replace(make_batch("a"), up=torch.tensor([[0.0, 0.0, 1.0]]))
    hook = WriteMesh(num_views=1, size=16)
    make_trainer(tmp_path, [hook]).test(DrawingModule(), loader(batch), verbose=False)
    assert not hook.failed
    low, high = np.frombuffer((tmp_path / "objects/a" / PACKED_NAME).read_bytes(), "<f4", 6, 16).reshape(2, 3)
    vertices = textured_box().vertices
    assert low[1] == pytest.approx(float(vertices[:, 2].min()), abs=1e-6)  # +z of the network stands up
    assert high[1] == pytest.approx(float(vertices[:, 2].max()), abs=1e-6)


def test_a_refined_mesh_is_made_in_an_evaluation(tmp_path, monkeypatch):
    coarse = partial(gaussians_to_mesh, **COARSE)
    monkeypatch.setattr("lgm.callbacks.evaluation.mesh.gaussians_to_mesh", coarse)
    few = RefinementSettings(steps=3, num_views=6, views_per_step=1, size=32)
    monkeypatch.setattr(RefinementSettings, "for_device", lambda device: few)
    hook = WriteMesh(faces=200, texture=64, num_views=1, size=32, refine=True)
    make_trainer(tmp_path, [hook]).test(DrawingModule(), loader(make_batch("a")), verbose=False)
    assert not hook.failed and (tmp_path / "objects" / "a" / "mesh.glb").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faces": 1}, "faces=1"),
        ({"texture": 1}, "texture=1"),
        ({"suffix": "fbx"}, "mesh.fbx"),
        ({"frame": "camera"}, "callbacks.mesh.frame='camera'"),
        ({"num_views": 0}, "callbacks.mesh.num_views=0"),
    ],
)
def test_options_that_make_no_mesh_are_refused_before_the_work(options, message):
    with pytest.raises(ValueError, match=message):
        WriteMesh(**options)


def test_true_surfaces_are_compared_in_the_frame_of_the_data(tmp_path, monkeypatch):
    """The data's frame is twice as large and stands elsewhere; `b` has no surface."""
    to_user = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    to_user[:3, 3] = torch.tensor([3.0, 0.0, -1.0])
    batches = [replace(make_batch(uid), to_user=to_user[None]) for uid in "ab"]

    class WithSurface(DrawingModule):
        def predict(self, batch, net=None):
            prediction = super().predict(batch, net)
            if batch.uids == ("a",):
                mesh = gaussians_to_mesh(prediction.gaussians, 500, 64, renderer=self.renderer, **COARSE)
                points = sample_surface(mesh.surface, 40_000) * 2 + to_user[:3, 3]
                prediction = replace(prediction, batch=replace(batch, surfaces=(points,)))
            return prediction

    coarse = partial(gaussians_to_mesh, **COARSE)
    monkeypatch.setattr("lgm.callbacks.evaluation.mesh.gaussians_to_mesh", coarse)
    (tmp_path / "metrics.json").write_text("{}")
    hook = WriteMesh(faces=500, texture=64, num_views=1, size=16)
    make_trainer(tmp_path, [hook]).test(WithSurface(), loader(*batches), verbose=False)
    metrics = json.loads((tmp_path / "metrics.json").read_text())["mesh"]
    assert metrics["objects"]["b"]["f_score"] is metrics["objects"]["b"]["chamfer"] is None
    assert metrics["median"]["f_score"] == metrics["objects"]["a"]["f_score"] > 0.9
    assert metrics["median"]["chamfer"] < 0.01 and "surfaces of 1 objects" in metrics["compared_surfaces"]
    own = json.loads((tmp_path / "objects/a/mesh.json").read_text())
    assert own == metrics["objects"]["a"]
