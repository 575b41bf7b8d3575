"""Framing of any scene for the page: as large as an object of the network, around the origin."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras.canonical import OBJECT_RADIUS
from lgm.cameras.similarity import moved as cameras_moved
from lgm.gaussians import Gaussians
from lgm.gaussians.similarity import moved
from lgm.viewer.objects import InputViews, ViewedObject

MAX_GAUSSIANS = 1_000_000
# Objects of the canonical frame are shown where they are: their place and size are results, too.
_CANONICAL_RADII = (0.25 * OBJECT_RADIUS, 1.3 * OBJECT_RADIUS)
# Farther than so many times the object's radius coordinates of 16 bits would be coarser than a pixel.
_FARTHEST = 30.0
_OPAQUE = 0.1
_SAMPLE = 100_000  # Gaussians whose distances say how large a scene is


def framed(viewed: ViewedObject, max_gaussians: int = MAX_GAUSSIANS) -> ViewedObject:
    """The object in the frame of the page, at most so many of its Gaussians, and notes on both.

    A scene that does not lie where objects of the canonical frame do is moved: the middle of its opaque
    Gaussians to the origin, 95 % of them within `OBJECT_RADIUS`.
    """
    gaussians, notes = viewed.gaussians, list(viewed.notes)
    center, radius = extent(gaussians)
    inputs = viewed.inputs
    if not _is_canonical(center, radius):
        similarity = torch.eye(4, dtype=torch.float64)
        similarity[:3] *= OBJECT_RADIUS / radius
        similarity[:3, 3] = -center * OBJECT_RADIUS / radius
        gaussians = moved(gaussians, similarity)
        if inputs is not None:
            inputs = InputViews(cameras_moved(inputs.cameras, similarity), inputs.images)
        where = ", ".join(f"{x:.3g}" for x in center.tolist())
        notes.append(
            f"centre={where} and radius={radius:.3g} of the file are shown as 0, 0, 0 and {OBJECT_RADIUS}"
        )
    is_near = gaussians.means[0].norm(dim=-1) <= _FARTHEST * OBJECT_RADIUS
    if num_far := int((~is_near).sum()):
        gaussians = gaussians.select(is_near)
        notes.append(f"{num_far:,} Gaussians farther than {_FARTHEST:g} radii are left out")
    if gaussians.num_gaussians > max_gaussians:
        notes.append(
            f"the {max_gaussians:,} largest and most opaque of {gaussians.num_gaussians:,} Gaussians are "
            "shown; --max-gaussians=N shows more"
        )
        gaussians = gaussians.select(_most_visible(gaussians, max_gaussians))
    return ViewedObject(gaussians, inputs, tuple(notes))


def extent(gaussians: Gaussians) -> tuple[Float[Tensor, " 3"], float]:
    """The middle of the opaque Gaussians (of all, where none is opaque) and the distance from it within
    which 95 % of them lie; in double precision."""
    means, scales = gaussians.means[0].double(), gaussians.scales[0].double()
    opaque = gaussians.opacities[0] >= _OPAQUE
    if opaque.any():
        means, scales = means[opaque], scales[opaque]
    if not len(means):
        return torch.zeros(3, dtype=torch.float64), OBJECT_RADIUS
    means, scales = (x[:: len(x) // _SAMPLE + 1] for x in (means, scales))
    low, high = (torch.quantile(means, q, dim=0) for q in (0.02, 0.98))
    # Quantiles: a few stray Gaussians would move a bounding box.
    center = (low + high) / 2
    distances = (means - center).norm(dim=-1)
    # A single Gaussian is as large as it is.
    radius = max(float(torch.quantile(distances, 0.95)), 2 * float(scales.amax(dim=-1).median()), 1e-12)
    return center, radius


def _is_canonical(center: Float[Tensor, " 3"], radius: float) -> bool:
    least, most = _CANONICAL_RADII
    return least <= radius <= most and float(center.norm()) + radius <= most


def _most_visible(gaussians: Gaussians, count: int) -> Tensor:
    """Indices, in their order, of those that cover most: opacity times the two larger scales."""
    largest = gaussians.scales[0].sort(dim=-1).values[:, 1:].prod(dim=-1)
    return (gaussians.opacities[0] * largest).topk(count).indices.sort().values
