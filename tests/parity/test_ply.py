"""The .ply file, against the one that the original writes and what it reads back."""

import logging

import numpy as np
import pytest
import torch
from plyfile import PlyData

from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply, save_ply
from tests.golden_files import GOLDEN


def test_reads_the_original(golden):
    tensors, _ = golden("gaussians")
    loaded = load_ply(GOLDEN / "gaussians.ply").packed()[0]
    assert (loaded - tensors["loaded"]).abs().max() <= 1e-6


def test_writes_the_same_fields(golden, tmp_path):
    tensors, _ = golden("gaussians")
    save_ply(Gaussians.from_packed(tensors["gaussians"]), tmp_path / "ours.ply")
    ours = PlyData.read(str(tmp_path / "ours.ply"))["vertex"].data
    theirs = PlyData.read(str(GOLDEN / "gaussians.ply"))["vertex"].data
    assert ours.dtype == theirs.dtype
    for name in theirs.dtype.names:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-6)
    assert (load_ply(tmp_path / "ours.ply").packed()[0] - tensors["loaded"]).abs().max() <= 1e-6


@pytest.mark.parametrize("program", ["inria", "gsplat"])
def test_reads_degree_3_of_other_programs(golden, caplog, program):
    """Files of their writers, and the numbers that went into them; a colour below 0 is drawn as 0."""
    caplog.set_level(logging.INFO, logger="lgm.gaussians.ply")
    loaded = load_ply(GOLDEN / f"{program}_degree3.ply").packed()[0]
    assert (loaded - golden("ply_files")[0]["gaussians"]).abs().max() <= 1e-6
    (line,) = [record.getMessage() for record in caplog.records]
    assert "45 coefficients a Gaussian are dropped" in line


def test_reads_a_compressed_file(golden):
    expected = golden("ply_files")[0]["gaussians"]
    loaded = load_ply(GOLDEN / "gsplat_compressed.ply").packed()[0]
    loaded = loaded[torch.cdist(expected[:, :3], loaded[:, :3]).argmin(dim=-1)]
    agreeing = (loaded[:, 7:11] * expected[:, 7:11]).sum(dim=-1, keepdim=True).sign()
    loaded[:, 7:11] *= agreeing  # q and -q are one rotation
    assert (loaded - expected).abs().max() <= 3e-3
