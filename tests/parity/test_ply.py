"""The .ply file, against the one that the original writes and what it reads back."""

import numpy as np
from plyfile import PlyData

from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply, save_ply
from tests.conftest import GOLDEN


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
