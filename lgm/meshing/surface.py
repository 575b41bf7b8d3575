"""Surface extraction: marching cubes on a signed distance field, cleaning and mesh simplification."""

from __future__ import annotations

import numpy as np
import torch

from lgm.meshing.fusion import Field
from lgm.meshing.mesh import Surface
from lgm.meshing.packages import required
from lgm.meshing.topology import (
    close_holes,
    components,
    drop_degenerate,
    face_areas,
    manifold,
    signed_volume,
)

# A component stays if it has this fraction of the whole area.
_MIN_AREA_FRACTION = 0.002
# Taubin 1995: a shrinking step, and a growing one that is a little longer, keep the volume.
_TAUBIN = (0.5, -0.53)


def extract(field: Field) -> Surface:
    """The zero level of a field by marching cubes (Lewiner et al. 2003), in the field's frame.

    Raises ValueError in one line where the field has one sign.
    """
    measure = required("skimage.measure", "scikit-image")
    values = field.values.cpu().numpy()
    if not values.min() < 0 < values.max():
        raise ValueError("the Gaussians enclose no solid part: there is no surface to make a mesh of")
    vertices, faces, _, _ = measure.marching_cubes(values, 0.0, allow_degenerate=False)
    # skimage orients faces towards lower values; outside is positive here.
    vertices = field.origin.cpu() + torch.from_numpy(vertices.astype(np.float32)) * field.voxel
    surface = Surface(vertices, torch.from_numpy(faces.astype(np.int64)))
    return surface if signed_volume(surface) >= 0 else flipped(surface)


def flipped(surface: Surface) -> Surface:
    """The same surface, its inside out."""
    return Surface(surface.vertices, surface.faces.flip(1))


def largest_components(surface: Surface, min_fraction: float = _MIN_AREA_FRACTION) -> Surface:
    """Components with at least `min_fraction` of the area, and the largest; cavities that are enclosed, whose
    faces look inward, go."""
    label, count = components(surface)
    face_label = label[surface.faces[:, 0]]
    areas = torch.zeros(count, dtype=torch.float64).index_add_(0, face_label, face_areas(surface))
    volumes = torch.zeros(count, dtype=torch.float64)
    volumes.index_add_(0, face_label, _face_volumes(surface))
    keep = (areas >= min_fraction * areas.sum()) & (volumes > 0)
    keep[areas.argmax()] = True
    return compacted(surface, keep[face_label])


def compacted(surface: Surface, keep: torch.Tensor) -> Surface:
    """Some faces [F], and the vertices that these use."""
    faces = surface.faces[keep]
    used, index = faces.unique(return_inverse=True)
    return Surface(surface.vertices[used], index.view(-1, 3))


def smoothed(surface: Surface, iterations: int = 6) -> Surface:
    """Taubin's smoothing with uniform weights: steps of the grid go, volume stays."""
    sparse = required("scipy.sparse", "scipy")
    count = len(surface.vertices)
    i, j = (surface.faces[:, k].numpy() for k in ([0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]))
    i, j = i.ravel(), j.ravel()
    adjacency = sparse.coo_matrix((np.ones(len(i), np.float32), (i, j)), (count, count)).tocsr()
    adjacency.data[:] = 1  # an edge of two faces is one edge
    degree = np.maximum(np.asarray(adjacency.sum(1)), 1)
    x = surface.vertices.numpy().copy()
    for _ in range(iterations):
        for step in _TAUBIN:
            x += step * (adjacency @ x / degree - x)
    return Surface(torch.from_numpy(x), surface.faces)


def simplified(surface: Surface, faces: int) -> Surface:
    """At most about `faces` faces, by quadric edge collapse (Garland and Heckbert 1997)."""
    if surface.num_faces <= faces:
        return surface
    simplification = required("fast_simplification", "fast-simplification")
    vertices, indices = simplification.simplify(
        surface.vertices.numpy().astype(np.float32),
        surface.faces.numpy().astype(np.int32),
        target_count=faces,
        agg=7.0,
    )
    vertices = torch.from_numpy(np.asarray(vertices, np.float32))
    return drop_degenerate(Surface(vertices, torch.from_numpy(np.asarray(indices, np.int64))))


def cleaned(surface: Surface, faces: int) -> Surface:
    """An extracted surface cleaned and simplified: smooth, manifold, of about `faces` faces."""
    surface = smoothed(largest_components(surface))
    return close_holes(manifold(simplified(surface, faces)))


def _face_volumes(surface: Surface) -> torch.Tensor:
    """Signed volumes [F] of the tetrahedra between faces and the origin, float64."""
    a, b, c = surface.corners.double().unbind(1)
    return (a * torch.linalg.cross(b, c)).sum(-1) / 6
