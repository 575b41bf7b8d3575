"""A .ply mesh with a colour for each vertex, and no texture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement

from lgm.files import atomic
from lgm.meshing.mesh import Mesh
from lgm.meshing.rasterizer import sample_texture


def save_colored_ply(mesh: Mesh, path: Path) -> None:
    """Write a binary .ply. A vertex has the mean of the texture's colours at its corners."""
    colors = sample_texture(mesh.texture, mesh.uvs[mesh.uv_faces.flatten()])
    index = mesh.faces.flatten()
    summed = torch.zeros_like(mesh.vertices).index_add_(0, index, colors)
    count = torch.bincount(index, minlength=len(mesh.vertices)).clamp_min(1)
    colors = (summed / count[:, None]).clamp(0, 1) * 255
    fields = [*((axis, "<f4") for axis in "xyz"), *((name, "u1") for name in ("red", "green", "blue"))]
    vertices = np.empty(len(mesh.vertices), fields)
    for (name, kind), column in zip(fields, [*mesh.vertices.T, *colors.round().T], strict=True):
        vertices[name] = column.detach().cpu().numpy().astype(kind)
    faces = np.empty(mesh.num_faces, [("vertex_indices", "<i4", (3,))])
    faces["vertex_indices"] = mesh.faces.cpu().numpy()
    elements = [PlyElement.describe(vertices, "vertex"), PlyElement.describe(faces, "face")]
    with atomic(path) as partial:
        PlyData(elements, byte_order="<").write(str(partial))
