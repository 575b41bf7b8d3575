"""Fields of 3D Gaussian splatting files: Gaussians before their activations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras.conventions import turn_from_y_up
from lgm.gaussians.gaussians import Gaussians

SH_C0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi))
POSITION, COLOR = ("x", "y", "z"), ("f_dc_0", "f_dc_1", "f_dc_2")
SHAPE = ("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
FIELDS = (*POSITION, *COLOR, *SHAPE)
_EPS = 1e-8  # keeps log(scale) finite, and makes files equal to the original's


def to_stored(gaussians: Gaussians, min_opacity: float, up: str) -> Float[Tensor, "N 14"]:
    """One scene ([1, N, …]) in the order of `FIELDS`, on the CPU: colour as the constant spherical
    harmonic, opacity as a logit, scales as logs, rotation as wxyz.

    min_opacity: Gaussians below it are left out. up: the axis that is up in the file.

    Raises ValueError in one line for several scenes, for values that are no numbers, and where no
    Gaussian is left.
    """
    if gaussians.num_scenes != 1:
        raise ValueError(f"a .ply holds one scene, got {gaussians.num_scenes}; take .scene(i)")
    # On the Gaussians' own device, and in rows: one selection and one transfer, not five.
    rows = gaussians.detach().packed()[0].float()
    broken = ~rows.isfinite().all(dim=-1)
    if num_broken := int(broken.sum()):  # before the selection, which NaN opacities would not pass
        raise ValueError(
            f"{num_broken} of {len(rows)} Gaussians hold NaN or infinity, the first at "
            f"{int(broken.nonzero()[0])}; nothing is written: look at what made them"
        )
    gaussians = Gaussians.from_packed(rows[rows[:, 3] >= min_opacity][None])
    if not gaussians.num_gaussians:
        raise ValueError(f"no Gaussian is left to write, of {len(rows)}; lower min_opacity={min_opacity}")
    if up != "y":
        gaussians = gaussians.turned(turn_from_y_up(up))
    x = torch.cat(
        [
            gaussians.means[0],
            (gaussians.colors[0] - 0.5) / SH_C0,
            torch.logit(gaussians.opacities[0].clamp(_EPS, 1 - 1e-7))[:, None],
            torch.log(gaussians.scales[0] + _EPS),
            gaussians.quats[0],
        ],
        dim=-1,
    )
    return x.cpu()


def from_stored(x: Float[Tensor, "N 14"], up: str) -> Gaussians:
    """The inverse of `to_stored`: one activated scene [1, N, …] in a world with +y up.

    Colours may lie above 1, as those of scenes that were optimised with higher spherical harmonics.
    """
    means, sh, opacities, scales, quats = x.split([3, 3, 1, 3, 4], dim=-1)
    gaussians = Gaussians(
        means=means[None],
        quats=torch.nn.functional.normalize(quats, dim=-1)[None],
        scales=torch.exp(scales)[None],
        opacities=torch.sigmoid(opacities)[None, :, 0],
        colors=(sh * SH_C0 + 0.5).clamp_min(0)[None],  # as every renderer of such files does
    )
    return gaussians if up == "y" else gaussians.turned(_inverse(turn_from_y_up(up)))


def _inverse(quat: Float[Tensor, " 4"]) -> Float[Tensor, " 4"]:
    return torch.cat([quat[:1], -quat[1:]])
