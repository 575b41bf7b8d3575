"""From the network's 14 raw channels to Gaussians, as LGM defines them."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lgm.gaussians.gaussians import Gaussians

Rotation = Literal["fixed", "legacy"]
ROTATIONS = ("fixed", "legacy")

_DARKEST = 0.02  # an anchor colour; nearer to 0 or 1, tanh passes no gradient
SCALE_FACTOR = 0.1  # scales are 0.1 * softplus(raw): a raw zero is a Gaussian of 0.07


@dataclass(frozen=True)
class Anchors:
    """Where Gaussians start, instead of at the origin and grey: raw zeros give exactly these."""

    means: Float[Tensor, "B N 3"]
    colors: Float[Tensor, "B N 3"]


def activate(
    raw: Float[Tensor, "B N 14"],
    rotation: Rotation = "fixed",
    anchors: Anchors | None = None,
    scale_bounds: tuple[float, float] | None = None,
) -> Gaussians:
    """Activate raw Gaussians (order: position 3, opacity 1, scale 3, rotation 4, rgb 3) in float32.

    rotation: "fixed" normalises the four numbers of each quaternion. "legacy" is for weights that
        were trained before the original's fix of 2024-04-03, which divided each of the four
        components by its norm over *all* Gaussians of the scene.
    anchors: what positions and colours are offsets from; None as released.
    scale_bounds: the smallest and largest scale in world units, with a sigmoid between them, as GRM has it
        (arXiv 2403.14621); None as released, without a largest.
    Raises ValueError for an unknown rotation.
    """
    means, opacities, scales, quats, colors = raw.float().split([3, 1, 3, 4, 3], dim=-1)
    if anchors is not None:
        means = means + anchors.means
        # The inverse of the activation below: a raw zero gives the anchor's colour.
        colors = colors + torch.atanh(2 * anchors.colors.clamp(_DARKEST, 1 - _DARKEST) - 1)
    if rotation == "fixed":
        quats = F.normalize(quats, dim=-1)
    elif rotation == "legacy":
        quats = _legacy_quats(quats)
    else:
        raise ValueError(f"rotation={rotation!r} is not one of {', '.join(ROTATIONS)}")
    return Gaussians(
        # As released: objects lie within the cube [-1, 1]³. Outside of it the clamp passes no gradient.
        means=means.clamp(-1, 1),
        quats=quats,
        scales=_scales(scales, scale_bounds),
        opacities=torch.sigmoid(opacities)[..., 0],
        # tanh, not sigmoid: the released weights were trained with it.
        colors=0.5 * torch.tanh(colors) + 0.5,
    )


def _scales(raw: Float[Tensor, "B N 3"], bounds: tuple[float, float] | None) -> Float[Tensor, "B N 3"]:
    """0.1 · softplus(raw) as released, or a sigmoid between bounds."""
    if bounds is None:
        return SCALE_FACTOR * F.softplus(raw)
    smallest, largest = bounds
    return smallest + (largest - smallest) * torch.sigmoid(raw)


def raw_scale(scale: float, bounds: tuple[float, float] | None = None) -> float:
    """The inverse of the scale's activation: the raw number that gives this scale, in world units."""
    if bounds is None:
        return math.log(math.expm1(scale / SCALE_FACTOR))
    smallest, largest = bounds
    if not 0 <= smallest < scale < largest:
        raise ValueError(
            f"scale_bounds={[smallest, largest]} must hold the scale that training starts from, {scale:.4g}"
        )
    return math.log((scale - smallest) / (largest - scale))


def _legacy_quats(raw: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N 4"]:
    """Unit quaternions for the rotation that the original's rasterizer made of legacy output.

    There `q` is normalised over all N Gaussians, so |q| is about 1/sqrt(N), and the rasterizer
    took it as it was: R = I + 2w[v]x + O(|v|²) with q = (w, v), next to no rotation. The
    unit quaternion of that R is (1, w·v), normalised; what it leaves out is of the order |v|².
    """
    q = F.normalize(raw, dim=1)
    w, v = q[..., :1], q[..., 1:]
    return F.normalize(torch.cat([torch.ones_like(w), w * v], dim=-1), dim=-1)
