"""Surface extraction: marching cubes on a signed distance field, cleaning and mesh simplification."""

from __future__ import annotations

import numpy as np
import torch

from lgm.meshing.adjacency import Adjacency, make_adjacency
from lgm.meshing.fusion import Field
from lgm.meshing.marching_cubes import marching_cubes, merged
from lgm.meshing.mesh import Surface
from lgm.meshing.packages import required
from lgm.meshing.topology import close_holes, drop_degenerate, manifold

# A component stays if it has this fraction of the whole area.
_MIN_AREA_FRACTION = 0.002
# Taubin 1995: a shrinking step, and a growing one that is a little longer, keep the volume.
_TAUBIN = (0.5, -0.53)


def extract(field: Field) -> Surface:
    """The zero level of a field by marching cubes, in the field's frame and on its device; closed. An edge
    may have four faces.

    Raises ValueError in one line where the field has one sign.
    """
    if not float(field.values.min()) < 0 < float(field.values.max()):
        raise ValueError("the Gaussians enclose no solid part: there is no surface to make a mesh of")
    vertices, faces = merged(field.values, *marching_cubes(field.values))
    return Surface(field.origin + vertices * field.voxel, faces)


def largest_components(surface: Surface, adjacency: Adjacency | None = None) -> Surface:
    """Components with at least `_MIN_AREA_FRACTION` of the area, and the largest; cavities that are enclosed,
    whose faces look inward, go."""
    label, count = (adjacency or make_adjacency(surface)).components()
    if count == 1:
        return surface
    a, b, c = surface.corners.unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    face_label = label[surface.faces[:, 0]]
    areas = torch.bincount(face_label, normals.norm(dim=-1).double(), count)
    volumes = torch.bincount(face_label, (a * normals).sum(-1).double(), count)
    keep = (areas >= _MIN_AREA_FRACTION * areas.sum()) & (volumes > 0)
    keep[areas.argmax()] = True
    return compacted(surface, keep[face_label])


def compacted(surface: Surface, keep: torch.Tensor) -> Surface:
    """Some faces [F], and the vertices that these use."""
    faces = surface.faces[keep]
    used = torch.zeros(len(surface.vertices), dtype=torch.bool, device=faces.device)
    used[faces.flatten()] = True
    index = used.cumsum(0) - 1
    return Surface(surface.vertices[used], index[faces])


def smoothed(surface: Surface, adjacency: Adjacency | None = None, iterations: int = 3) -> Surface:
    """Taubin's smoothing with uniform weights: steps of the grid go, volume stays. Of a closed surface."""
    adjacency = adjacency or make_adjacency(surface)
    x = surface.vertices
    for _ in range(iterations):
        for step in _TAUBIN:
            x = x.lerp(adjacency.means(x), step)
    return Surface(x, surface.faces)


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
    """An extracted surface cleaned and simplified: smooth, manifold, of about `faces` faces; on the CPU."""
    adjacency = make_adjacency(surface)
    surface = largest_components(smoothed(surface, adjacency), adjacency).to("cpu")
    return close_holes(manifold(simplified(surface, faces)))
