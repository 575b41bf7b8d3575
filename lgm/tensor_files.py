"""Safe reading of tensor files of unknown origin: `.safetensors` and torch's zip archives.

The author of such a file decides what it declares: sizes, strides, types, nesting. It is checked against the
bytes that are really there before memory is spent on it, and nothing in it is executed: archives are
unpickled with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lgm.errors import shown

# A tensor takes about 100 bytes of an archive's pickle, so this is 40,000 of them. The unpickler of
# `weights_only` is written in Python and takes seconds for it.
_LARGEST_PICKLE = 4 << 20
_LARGEST_HEADER = 8 << 20  # of a .safetensors: JSON, some 100 bytes a tensor
_MOST_MEMBERS = 100_000


def read_archive(path: Path) -> Any:
    """An archive of `torch.save`, on the CPU, its tensors memory-mapped. Raises whatever torch does: call it
    within `lgm.errors.reading`."""
    _check_archive(path)
    return _unpickled(path, mmap=True)


def read_any_archive(path: Path) -> Any:
    """The same into memory, also of files in the form that torch.save had before 2020."""
    if zipfile.is_zipfile(path):
        _check_archive(path)
    return _unpickled(path, mmap=False)


def _unpickled(path: Path, mmap: bool) -> Any:
    """`torch.load` with `weights_only=True`, whose message for a file that holds more than data would
    advise to turn that off."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = shown(str(error).rpartition("WeightsUnpickler error:")[2].partition("\n")[0].strip(), 150)
        raise ValueError(f"it holds more than tensors and plain values ({reason})") from error


def _check_archive(path: Path) -> None:
    """Refuse zip archives that unpack to more than they are, as torch's never do."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"it has {len(members)} members, more than {_MOST_MEMBERS}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its members are compressed, as torch.save never writes them")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its members are larger than the file: it is cut, or declares what it does not hold")
    pickles = [member.file_size for member in members if member.filename.endswith(".pkl")]
    if sum(pickles) > _LARGEST_PICKLE:
        raise ValueError(f"its pickle takes {sum(pickles)} bytes, more than {_LARGEST_PICKLE}")


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by name and the metadata of a `.safetensors`, without reading a tensor. Call it within
    `lgm.errors.reading`."""
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8:
        raise ValueError("it is too short for a .safetensors")
    if (size := struct.unpack("<Q", start)[0]) > min(_LARGEST_HEADER, path.stat().st_size):
        raise ValueError(f"it declares a header of {size} bytes")
    shapes = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            shapes[name] = tuple(file.get_slice(name).get_shape())
        return shapes, file.metadata() or {}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`. Call it within `lgm.errors.reading`."""
    read_header(path)
    return load_file(path)


def check_tensors(tensors: Any, what: str, num_bytes: int) -> None:
    """Raise ValueError unless these are named tensors, dense and on the CPU, that the file really holds.

    num_bytes: the size of the file. With a stride of 0, or of storage that others use too, a tensor of a
        few bytes declares any size.
    """
    if not isinstance(tensors, Mapping):
        raise ValueError(f"{what} is {type(tensors).__name__}, not named tensors")
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise ValueError(f"{what} has a name that is not a string: {shown(repr(name), 50)}")
        check_tensor(tensor, f"{what}: {shown(name, 100)}")
    if sum(tensor.nbytes for tensor in tensors.values()) > num_bytes:
        raise ValueError(f"{what} declares more numbers than the file holds")


def check_tensor(tensor: Any, what: str) -> None:
    """Raise ValueError unless this is a dense tensor on the CPU with a number in memory for each of its
    elements."""
    if type(tensor) not in (Tensor, nn.Parameter):
        raise ValueError(f"{what} is {type(tensor).__name__}, not a tensor")
    is_plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_nested
    if not is_plain or tensor.is_quantized or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError(f"{what} is not a plain tensor, with one number in the file for each element")
