"""Surface metrics of a mesh against the truth: Chamfer distance, precision, recall and F-score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.meshing.mesh import Surface
from lgm.meshing.packages import required

NUM_SAMPLES = 100_000
THRESHOLD = 0.01  # of the true surface's size, the longest side of its box


@dataclass(frozen=True)
class SurfaceDistance:
    """Distances between two point sets, in units of the true surface's size.

    chamfer: the mean distance from the mesh to the truth, and from the truth to the mesh, averaged.
    precision, recall: fractions of the mesh's, of the truth's points that lie within THRESHOLD of the other.
    """

    chamfer: float
    precision: float
    recall: float

    @property
    def f_score(self) -> float:
        """The harmonic mean of precision and recall (Knapitsch et al. 2017)."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def sample_surface(surface: Surface, count: int = NUM_SAMPLES, seed: int = 0) -> Float[Tensor, "S 3"]:
    """Points spread evenly by area over a surface, the same each time."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = surface.to("cpu").corners.double().unbind(1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=-1)
    area = torch.rand(count, generator=generator, dtype=torch.float64) * areas.sum()
    # Inverse transform sampling: faces in proportion to their area.
    face = torch.searchsorted(areas.cumsum(0), area).clamp_max(len(areas) - 1)
    u, v = torch.rand(2, count, 1, generator=generator, dtype=torch.float64)
    # The parallelogram's other half, folded back onto the triangle.
    beyond = u + v > 1
    u, v = torch.where(beyond, 1 - u, u), torch.where(beyond, 1 - v, v)
    return (a[face] + u * (b - a)[face] + v * (c - a)[face]).float()


def surface_distance(surface: Surface, truth: Float[Tensor, "P 3"]) -> SurfaceDistance:
    """Compare a mesh with points of the true surface, both in one frame.

    Raises ValueError in one line where one of them is empty.
    """
    if not surface.num_faces or not len(truth):
        raise ValueError(
            f"nothing to compare: the mesh has {surface.num_faces} faces, the truth {len(truth)} points"
        )
    spatial = required("scipy.spatial", "scipy")
    points, truth = sample_surface(surface).numpy(), truth.cpu().float().numpy()
    size = float((truth.max(0) - truth.min(0)).max())
    to_truth = spatial.cKDTree(truth).query(points)[0] / size
    to_mesh = spatial.cKDTree(points).query(truth)[0] / size
    return SurfaceDistance(
        chamfer=float(to_truth.mean() + to_mesh.mean()) / 2,
        precision=float((to_truth <= THRESHOLD).mean()),
        recall=float((to_mesh <= THRESHOLD).mean()),
    )
