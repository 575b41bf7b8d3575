"""Comparisons show objects of all evaluations in one frame, from the files beside their numbers."""

import base64
import zlib
from dataclasses import replace

import pytest
import torch

from lgm.gaussians.ply import save_ply
from lgm.metrics.comparison import compare
from lgm.reports.compared_objects import compared_objects
from lgm.reports.folders import object_dir
from tests.unit.metrics.test_hostile_names import evaluation
from tests.unit.reports.test_splats import scene, unpacked

UID = "../a <b>"


def compared(tmp_path, configs=("", ""), scenes=None):
    """Two evaluations of one object, and their files."""
    gaussians = scene(100)
    gaussians.opacities[:] = 0.9
    scenes = scenes or (gaussians, replace(gaussians, means=gaussians.means + 0.5))
    evaluations = []
    for name, config, one in zip("ab", configs, scenes, strict=True):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(config)
        if one is not None:
            save_ply(one, object_dir(folder, UID) / "gaussians.ply")
        evaluations.append(evaluation(folder, UID, f"{name}.ckpt", 20.0 + len(evaluations)))
    return compared_objects(compare(evaluations)), gaussians


def means_of(orbit):
    return unpacked(zlib.decompress(base64.b64decode(orbit.data))).means[0]


def test_all_evaluations_of_an_object_are_moved_alike(tmp_path):
    (entry,), gaussians = compared(tmp_path)
    assert (entry.uid, entry.psnr, entry.difference) == (UID, [20.5, 21.5], 1.0)
    first, other = (means_of(orbit) for orbit in entry.orbits)
    assert first.norm(dim=-1).quantile(0.9) < 0.6
    scale = (first[0] - first[1]).norm() / (gaussians.means[0, 0] - gaussians.means[0, 1]).norm()
    assert torch.allclose(other - first, (0.5 * scale).expand_as(first), atol=2e-3)


@pytest.mark.parametrize(
    "config", ["3", "[]", "callbacks: 3", "callbacks: {export_ply: {up: [1], frame: {}}}"]
)
def test_a_strange_configuration_is_one_without_options(tmp_path, config):
    objects, _ = compared(tmp_path, (config, config))
    assert len(objects) == 1


def test_files_in_other_frames_or_none_are_not_shown(tmp_path):
    network = "callbacks: {export_ply: {frame: network}}"
    assert compared(tmp_path, (network, ""))[0] == []
    other = tmp_path / "other"
    other.mkdir()
    assert compared(other, scenes=(scene(5), None))[0] == []


def test_a_broken_file_is_left_out_with_a_line(tmp_path, caplog):
    objects, _ = compared(tmp_path)
    assert objects
    for path in tmp_path.glob("a/objects/*/gaussians.ply"):
        path.write_bytes(b"ply\n")
    evaluations = [evaluation(tmp_path / name, UID, f"{name}.ckpt", 20.0) for name in "ab"]
    assert compared_objects(compare(evaluations)) == []
    assert "not shown side by side" in caplog.text
