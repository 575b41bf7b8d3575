"""The compressed .ply of PlayCanvas and SuperSplat: 16 bytes a Gaussian instead of 56.

Gaussians lie in chunks of 256 that know their bounds; between them a position takes 32 bits, log
scales 32, a rotation its three smaller numbers in 30, colour and opacity 8 each. gsplat writes it,
in Python alone: neither a GPU nor a compiler is needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from plyfile import PlyData
from torch import Tensor

from lgm.gaussians.gaussians import Gaussians
from lgm.gaussians.stored import SH_C0, to_stored

_CHUNK = 256
_LARGEST = 2**0.5 / 2  # no number of a quaternion but its largest goes beyond
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])  # than the largest, by its index


def save_compressed_ply(
    gaussians: Gaussians, path: str | Path, min_opacity: float = 0.005, up: str = "y"
) -> None:
    """Write one scene ([1, N, …]) as a compressed .ply, in another order of its Gaussians.

    min_opacity, up: see `lgm.gaussians.ply.save_ply`.

    Raises ValueError as `save_ply`, and where gsplat is missing.
    """
    pack = packer()
    x = to_stored(gaussians, min_opacity, up)
    means, sh0, opacities, scales, quats = x.split([3, 3, 1, 3, 4], dim=-1)
    data = pack(
        means=means,
        scales=scales,
        quats=quats,
        opacities=opacities[:, 0],
        sh0=sh0,
        shN=x.new_zeros(len(x), 0),
        opacity_threshold=0.0,  # what is too faint has been left out
    )
    # With no higher spherical harmonics gsplat still names an element for them, of no properties, and then
    # PlayCanvas does not take the file for a compressed one.
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data.replace(b"element sh %d\n" % len(x), b"", 1))


def packer():
    """gsplat's function that packs Gaussians; ValueError in one line where gsplat is missing."""
    try:
        from gsplat.exporter import splat2ply_bytes_compressed
    except ImportError as error:
        raise ValueError(
            f"a compressed .ply needs gsplat ({error}): pip install gsplat; without a GPU or a compiler it "
            "works too"
        ) from error
    return splat2ply_bytes_compressed


def is_compressed(ply: PlyData) -> bool:
    """Whether a file has the chunks and packed vertices of PlayCanvas' format."""
    return "chunk" in ply and "vertex" in ply and "packed_position" in (ply["vertex"].data.dtype.names or ())


def unpacked(ply: PlyData) -> Float[Tensor, "N 14"]:
    """The columns of a compressed file, in the order of `lgm.gaussians.stored.FIELDS`."""
    vertices = ply["vertex"].data
    chunks = ply["chunk"].data[np.arange(len(vertices)) // _CHUNK]

    def between(name: str, axes: str, shares: NDArray) -> NDArray:
        low, high = (
            np.stack([chunks[f"{end}{name}_{axis}"] for axis in axes], axis=-1) for end in ("min", "max")
        )
        return low + shares * (high - low)

    color = _bits(vertices["packed_color"], (8, 8, 8, 8))
    alpha = np.clip(color[:, 3:], 0.5 / 255, 1 - 0.5 / 255)  # half a step from where a logit ends
    rgb = between("", "rgb", color[:, :3]) if "min_r" in chunks.dtype.names else color[:, :3]
    return torch.from_numpy(
        np.concatenate(
            [
                between("", "xyz", _bits(vertices["packed_position"], (11, 10, 11))),
                (rgb - 0.5) / SH_C0,
                np.log(alpha / (1 - alpha)),
                between("_scale", "xyz", _bits(vertices["packed_scale"], (11, 10, 11))),
                _quats(vertices["packed_rotation"]),
            ],
            axis=-1,
        ).astype(np.float32)
    )


def _bits(packed: NDArray, widths: tuple[int, ...]) -> NDArray:
    """Fractions in 0..1 [N, len(widths)] from words that hold them in so many bits, the first on top."""
    shifts = np.cumsum(widths[::-1])[::-1] - widths
    masks = (1 << np.array(widths)) - 1
    return (packed[:, None].astype(np.int64) >> shifts & masks) / masks


def _quats(packed: NDArray) -> NDArray:
    """Unit quaternions wxyz, smallest-three encoded: the index of the largest number and the three others."""
    largest = packed.astype(np.int64) >> 30
    others = (_bits(packed, (2, 10, 10, 10))[:, 1:] - 0.5) * 2 * _LARGEST
    quats = np.empty((len(packed), 4))
    rows = np.arange(len(packed))
    quats[rows[:, None], _OTHERS[largest]] = others
    # The largest number follows from unit length; its sign is positive, since q and -q are one rotation.
    quats[rows, largest] = np.sqrt(np.clip(1 - (others**2).sum(axis=-1), 0, None))
    return quats
