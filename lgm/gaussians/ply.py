"""The .ply of 3D Gaussian splatting, as every viewer reads it."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from plyfile import PlyData, PlyElement
from torch import Tensor

from lgm.errors import reading
from lgm.gaussians.compressed_ply import is_compressed, unpacked
from lgm.gaussians.gaussians import Gaussians
from lgm.gaussians.stored import COLOR, FIELDS, POSITION, SHAPE, from_stored, to_stored

log = logging.getLogger(__name__)

SH_DEGREES = (0, 1, 2, 3)
_NORMAL = ("nx", "ny", "nz")
_SHOWN = 4
_OPACITY, _SCALES = FIELDS.index("opacity"), slice(FIELDS.index("scale_0"), FIELDS.index("scale_2") + 1)
_FILTER = "filter_3D"
_LONGEST_HEADER = 1 << 20  # bytes


def save_ply(
    gaussians: Gaussians,
    path: str | Path,
    min_opacity: float = 0.005,
    up: str = "y",
    sh_degree: int = 0,
    normals: bool = False,
) -> None:
    """Write one scene ([1, N, …]) as a 3DGS .ply: opacity as a logit, scales as logs, colour as the
    constant spherical harmonic, rotation as wxyz.

    min_opacity: Gaussians below it are left out; nobody can see them, and half of a network's
        output (its background pixels) is such.
    up: the axis that is up in the file: "y" as in this program, "z" as in Blender, "-y" as most
        3DGS viewers take it.
    sh_degree: for readers that want the higher spherical harmonics too: zeros up to that degree,
        f_rest_0 to f_rest_44 for 3, where Inria's files have them.
    normals: zeros as nx, ny, nz, where Inria's files have them.

    Raises ValueError in one line, and writes nothing, for several scenes, for Gaussians that hold NaN or
    infinity, and where all are below min_opacity: `load_ply` would refuse such files.
    """
    rest, normal = rest_fields(sh_degree), _NORMAL if normals else ()
    x = to_stored(gaussians, min_opacity, up)
    blocks = [
        x[:, :3],
        x.new_zeros(len(x), len(normal)),
        x[:, 3:6],
        x.new_zeros(len(x), len(rest)),
        x[:, 6:],
    ]
    names = (*POSITION, *normal, *COLOR, *rest, *SHAPE)
    table = torch.cat(blocks, dim=-1).numpy().astype("<f4", copy=False)
    # The .ply of 3DGS is little-endian float32, one structured row per vertex.
    vertices = table.view([(name, "<f4") for name in names])[:, 0]  # no copy: a row is a vertex
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(str(path))


def load_ply(path: str | Path, up: str = "y") -> Gaussians:
    """Read a 3DGS .ply as one activated scene [1, N, …]; the inverse of `save_ply`.

    It may come from this program, the original LGM, Inria's 3DGS, gsplat or another that follows
    them, or be compressed as SuperSplat's. Gaussians here have one colour whatever the direction:
    higher spherical harmonics are dropped, which the log says. Mip-Splatting's `filter_3D` is baked into
    scales and opacities, as its own renderer applies it.

    up: the axis that is up in the file.

    Raises FileNotFoundError, or ValueError where the file is no .ply of Gaussians.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; write it again")
    # Values come from another program: they are checked here, not met as non-finite images later.
    # What overflows becomes infinite, and is named below.
    with reading(path, "it is no .ply of 3D Gaussians, or damaged"), np.errstate(over="ignore"):
        ply = PlyData.read(_ascii_header(path))
        x = unpacked(ply) if is_compressed(ply) else _columns(ply, path)
    if not len(x):
        raise ValueError(f"{path} holds no Gaussians at all; save it with a lower min_opacity")
    # An opacity's logit of ±inf is 1 or 0, a log scale of -inf a Gaussian that is flat: both have a meaning.
    has_value = x.isfinite()
    has_value[:, _OPACITY] |= x[:, _OPACITY].isinf()
    has_value[:, _SCALES] |= x[:, _SCALES] == -torch.inf
    broken = ~has_value.all(dim=-1)
    if broken.any():
        raise ValueError(
            f"{path} holds values that are no numbers, for {int(broken.sum())} of its {len(x)} Gaussians, "
            f"the first at {int(broken.nonzero()[0])}; write it again"
        )
    if dropped := _num_directional(ply):
        log.info(
            "%s: its colours change with the direction; %d coefficients a Gaussian are dropped, and the "
            "constant colour is kept",
            path,
            dropped,
        )
    gaussians = from_stored(x, up)
    beyond = ~gaussians.packed()[0].isfinite().all(dim=-1)
    if beyond.any():
        raise ValueError(
            f"{path} holds scales or colours beyond float32 once activated, for {int(beyond.sum())} of its "
            f"{len(x)} Gaussians, the first at {int(beyond.nonzero()[0])}; write it again"
        )
    return gaussians


def rest_fields(sh_degree: int) -> tuple[str, ...]:
    """The columns of all spherical harmonics up to a degree but the constant one, for three channels.

    Raises ValueError for a degree that no viewer knows.
    """
    if sh_degree not in SH_DEGREES:
        raise ValueError(f"sh_degree={sh_degree} is not one of {', '.join(map(str, SH_DEGREES))}")
    return tuple(f"f_rest_{i}" for i in range(3 * ((sh_degree + 1) ** 2 - 1)))


def _columns(ply: PlyData, path: Path) -> Float[Tensor, "N 14"]:
    """The columns of a plain file, in the order of `FIELDS`."""
    if "vertex" not in ply:
        raise ValueError(f"{path} is no .ply of 3D Gaussians: it has no vertices")
    vertices = ply["vertex"].data
    names = vertices.dtype.names or ()
    missing = [name for name in FIELDS if name not in names]
    if missing:
        faces = len(ply["face"].data) if "face" in ply else 0
        what = f"is a mesh of {faces} faces" if faces else "is no .ply of 3D Gaussians"
        shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise ValueError(
            f"{path} {what}: it lacks {shown}; give what save_ply or another 3DGS program has written"
        )
    x = torch.from_numpy(np.stack([vertices[name].astype(np.float32) for name in FIELDS], axis=-1))
    if _FILTER in names:
        log.info("%s: %s is baked into its scales and opacities", path, _FILTER)
        x = _filtered(x, torch.from_numpy(vertices[_FILTER].astype(np.float64)))
    return x


def _filtered(x: Float[Tensor, "N 14"], sigma: Float[Tensor, " N"]) -> Float[Tensor, "N 14"]:
    """Mip-Splatting's 3-D smoothing (Yu et al. 2023, arXiv 2311.16493, eq. 9): variances grow by sigma² in
    all directions, and the opacity falls as the volume has grown."""
    variances = (2 * x[:, _SCALES].double()).exp()
    grown = variances + sigma[:, None].square()
    opacities = x[:, _OPACITY].double().sigmoid() * (variances / grown).prod(dim=-1).sqrt()
    result = x.clone()
    result[:, _SCALES] = (grown.log() / 2).float()
    result[:, _OPACITY] = opacities.logit().float()
    return result


def _ascii_header(path: Path) -> str | io.BytesIO:
    """The file for plyfile: itself, or a copy in memory where a comment of the header has letters
    that are not ASCII, with `?` for these."""
    header = b""
    with path.open("rb") as file:
        for line in file:  # a file that is not a .ply may have a line without end: its start says enough
            header += line
            if line.strip() == b"end_header" or len(header) > _LONGEST_HEADER:
                break
        if header.isascii() or len(header) > _LONGEST_HEADER or not header.startswith(b"ply"):
            return str(path)
        plain = bytes(byte if byte < 128 else ord("?") for byte in header)
        return io.BytesIO(plain + file.read())


def _num_directional(ply: PlyData) -> int:
    """How many coefficients of higher spherical harmonics a Gaussian has; 0 where all are zero."""
    element = ply["sh" if "sh" in ply else "vertex"].data
    rest = [name for name in element.dtype.names or () if name.startswith("f_rest_")]
    return len(rest) if any(element[name].any() for name in rest) else 0
