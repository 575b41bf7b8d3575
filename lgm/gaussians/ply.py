"""The .ply of 3D Gaussian splatting, as every viewer reads it."""

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError

from lgm.gaussians.gaussians import Gaussians

SH_C0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi))
_FIELDS = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_EPS = 1e-8  # keeps log(scale) finite, and makes files equal to the original's


def save_ply(gaussians: Gaussians, path: str | Path, min_opacity: float = 0.005) -> None:
    """Write one scene ([1, N, …]) as a 3DGS .ply: opacity as a logit, scales as logs, colour as the
    constant spherical harmonic, rotation as wxyz.

    min_opacity: Gaussians below it are left out; nobody can see them, and half of a network's
        output (its background pixels) is such.
    """
    if gaussians.num_scenes != 1:
        raise ValueError(f"save_ply writes one scene, got {gaussians.num_scenes}; take .scene(i)")
    gaussians = gaussians.detach().to("cpu", torch.float32)
    gaussians = gaussians.select(gaussians.opacities[0] >= min_opacity)
    opacities = gaussians.opacities[0].clamp(_EPS, 1 - 1e-7)
    columns = torch.cat(
        [
            gaussians.means[0],
            (gaussians.colors[0] - 0.5) / SH_C0,
            torch.logit(opacities)[:, None],
            torch.log(gaussians.scales[0] + _EPS),
            gaussians.quats[0],
        ],
        dim=-1,
    ).numpy()
    vertices = np.empty(len(columns), dtype=[(name, "<f4") for name in _FIELDS])
    for column, name in enumerate(_FIELDS):
        vertices[name] = columns[:, column]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(str(path))


def load_ply(path: str | Path) -> Gaussians:
    """Read a 3DGS .ply as one activated scene [1, N, …]; the inverse of `save_ply`.

    Raises FileNotFoundError, or ValueError where the file is no .ply of Gaussians.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        vertices = PlyData.read(str(path))["vertex"]
    except (PlyParseError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no readable .ply with vertices: {error}") from error
    missing = [name for name in _FIELDS if name not in vertices.data.dtype.names]
    if missing:
        raise ValueError(f"{path} is no .ply of 3D Gaussians: it lacks {', '.join(missing)}")
    x = torch.from_numpy(np.stack([vertices[name].astype(np.float32) for name in _FIELDS], axis=-1))
    means, sh, opacities, scales, quats = x.split([3, 3, 1, 3, 4], dim=-1)
    return Gaussians(
        means=means[None],
        quats=torch.nn.functional.normalize(quats, dim=-1)[None],
        scales=torch.exp(scales)[None],
        opacities=torch.sigmoid(opacities)[None, :, 0],
        colors=(sh * SH_C0 + 0.5)[None],
    )
