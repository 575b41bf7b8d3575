"""Surface extraction: marching cubes on a signed distance field, cleaning and mesh simplification."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lgm.meshing.fusion import Field
from lgm.meshing.mesh import Surface
from lgm.meshing.packages import required
from lgm.meshing.topology import (
    close_holes,
    components,
    components_of,
    drop_degenerate,
    half_edges,
    manifold,
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
    # By its default of `gradient_direction` faces look towards higher values, which are outside.
    vertices, faces, _, _ = measure.marching_cubes(values, 0.0, allow_degenerate=False)
    vertices = field.origin.cpu() + torch.from_numpy(vertices.astype(np.float32)) * field.voxel
    return Surface(vertices, torch.from_numpy(faces.astype(np.int64)))


def largest_components(surface: Surface, min_fraction: float = _MIN_AREA_FRACTION) -> Surface:
    """Components with at least `min_fraction` of the area, and the largest; cavities that are enclosed, whose
    faces look inward, go."""
    return _largest(surface, *components(surface), min_fraction)


def _largest(
    surface: Surface, label: torch.Tensor, count: int, min_fraction: float = _MIN_AREA_FRACTION
) -> Surface:
    """As of `largest_components`, of vertices' labels [V] below `count`."""
    if count == 1:
        return surface
    a, b, c = surface.corners.unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    face_label = label[surface.faces[:, 0]]
    areas = torch.bincount(face_label, normals.norm(dim=-1).double(), count)
    volumes = torch.bincount(face_label, (a * normals).sum(-1).double(), count)
    keep = (areas >= min_fraction * areas.sum()) & (volumes > 0)
    keep[areas.argmax()] = True
    return compacted(surface, keep[face_label])


def compacted(surface: Surface, keep: torch.Tensor) -> Surface:
    """Some faces [F], and the vertices that these use."""
    faces = surface.faces[keep]
    used = torch.zeros(len(surface.vertices), dtype=torch.bool)
    used[faces.flatten()] = True
    index = used.cumsum(0) - 1
    return Surface(surface.vertices[used], index[faces])


def smoothed(surface: Surface, iterations: int = 6) -> Surface:
    """Taubin's smoothing with uniform weights: steps of the grid go, volume stays. Of a closed surface."""
    return _smoothed(surface, half_edges(surface), iterations)


def _smoothed(surface: Surface, adjacency: Any, iterations: int = 6) -> Surface:
    sparse = required("scipy.sparse", "scipy")
    # Each edge of a closed surface has two half-edges: rows hold all neighbours, each once.
    degree = np.maximum(np.diff(adjacency.indptr), 1).astype(np.float32)
    mean = sparse.diags_array(1 / degree, format="csr") @ adjacency
    x = surface.vertices.numpy().copy()
    for _ in range(iterations):
        for step in _TAUBIN:
            change = mean @ x
            change -= x
            change *= step
            x += change
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
    adjacency = half_edges(surface)
    surface = _largest(_smoothed(surface, adjacency), *components_of(adjacency))
    return close_holes(manifold(simplified(surface, faces)))
