"""A mesh as several file formats need it: vertices split at seams, the texture as an image."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image

from lgm.meshing.mesh import Mesh
from lgm.meshing.topology import vertex_normals


@dataclass(frozen=True)
class SplitMesh:
    """One index a corner: a vertex on a seam stands once for each of its texture coordinates."""

    positions: Float[np.ndarray, "S 3"]
    normals: Float[np.ndarray, "S 3"]
    uvs: Float[np.ndarray, "S 2"]
    faces: Int[np.ndarray, "F 3"]


def split(mesh: Mesh) -> SplitMesh:
    """Split vertices where texture coordinates differ; normals stay smooth across seams."""
    # One number a pair: ten times as fast as unique rows, and in their order.
    codes = (mesh.faces.long() << 32 | mesh.uv_faces.long()).flatten().cpu()
    unique, index = codes.unique(return_inverse=True)
    vertex, uv = unique >> 32, unique & 0xFFFFFFFF
    positions, uvs = (x.detach().cpu().float() for x in (mesh.vertices, mesh.uvs))
    normals = vertex_normals(mesh.surface.to("cpu")).detach().float()
    # Faces without area have no normal, and formats want one of unit length.
    normals = torch.where(normals.norm(dim=-1, keepdim=True) < 0.5, torch.tensor([0.0, 1.0, 0.0]), normals)
    return SplitMesh(
        positions=positions[vertex].numpy(),
        normals=normals[vertex].numpy(),
        uvs=uvs[uv].clamp(0, 1).numpy(),
        faces=index.view(-1, 3).numpy(),
    )


def png(mesh: Mesh) -> bytes:
    """The texture as a PNG file of 8-bit sRGB."""
    pixels = (mesh.texture.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(file, format="PNG")
    return file.getvalue()
