"""Rasterization of one mesh by `lgm.rendering.meshes`: Triton on a GPU, PyTorch elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lgm.cameras import Cameras
from lgm.meshing.mesh import Mesh
from lgm.rendering.meshes import MeshBatch, make_mesh_renderer
from lgm.rendering.meshes.projection import pixel_matrices
from lgm.rendering.meshes.shading import locate, sample_textures
from lgm.rendering.meshes.visibility import face_ids_of
from lgm.types import RenderOutput


@dataclass(frozen=True)
class Fragments:
    """The nearest face at each pixel of C cameras.

    face_ids: -1 where no face covers the pixel's centre.
    barycentrics: perspective-correct weights of the face's three vertices; 0 where there is no face.
    depths: distances along the camera's axis; 0 where there is no face.
    """

    face_ids: Int[Tensor, "C H W"]
    barycentrics: Float[Tensor, "C H W 3"]
    depths: Float[Tensor, "C H W"]


def rasterize(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: Cameras, height: int, width: int
) -> Fragments:
    """The nearest face at each pixel of cameras [C]; both sides of a face are drawn."""
    return _rasterize(vertices, faces, pixel_matrices(cameras, height, width), height, width)


def rasterize_texture(
    uvs: Float[Tensor, "T 2"], uv_faces: Int[Tensor, "F 3"], height: int, width: int
) -> Fragments:
    """The face at each texel's centre of a texture, as if seen by one camera (C = 1); all depths are 1."""
    vertices = torch.cat([uvs, torch.zeros_like(uvs[:, :1])], 1)
    # A camera without perspective: w is 1 everywhere, and so is the depth.
    matrix = uvs.new_tensor([[width, 0, 0, 0], [0, height, 0, 0], [0, 0, 0, 1]])
    return _rasterize(vertices, uv_faces, matrix[None], height, width)


def interpolate(
    fragments: Fragments, attributes: Float[Tensor, "A K"], faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "C H W K"]:
    """Attributes of the vertices, interpolated at each pixel; 0 where there is no face.

    faces: indices into `attributes` of each face's corners, e.g. `Mesh.faces` or `Mesh.uv_faces`.
    """
    corners = attributes[faces[fragments.face_ids.clamp_min(0)]]  # [C, H, W, 3, K]
    return (corners * fragments.barycentrics[..., None]).sum(-2)


def sample_texture(
    texture: Float[Tensor, "H W 3"], uvs: Float[Tensor, "*batch 2"]
) -> Float[Tensor, "*batch 3"]:
    """Bilinear look-up at texture coordinates like `Mesh.uvs`; beyond the border its nearest texel."""
    flat = uvs.reshape(-1, 2)
    first = torch.zeros(len(flat), dtype=torch.long, device=flat.device)
    return sample_textures(texture[None], first, flat).reshape(*uvs.shape[:-1], 3)


def draw(
    mesh: Mesh,
    cameras: Cameras,
    height: int,
    width: int,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    supersampling: int = 1,
) -> RenderOutput:
    """Draw a textured mesh from cameras [C]: images, alphas and depths [1, C, …], as a `Renderer` does.

    supersampling: samples along a pixel's side, averaged.
    """
    renderer = make_mesh_renderer(mesh.vertices.device.type)
    output = renderer(
        MeshBatch.pack([mesh]), cameras[None], height, width, background, supersampling=supersampling
    )
    return RenderOutput(output.images, output.alphas, output.depths)


def _rasterize(vertices: Tensor, faces: Tensor, matrices: Tensor, height: int, width: int) -> Fragments:
    renderer = make_mesh_renderer(vertices.device.type)
    untextured = MeshBatch(
        vertices, faces, (len(faces),), vertices[:, :2], faces, vertices.new_zeros(1, 1, 1, 3)
    )
    face_ids = face_ids_of(renderer.nearest_faces(untextured, matrices, height, width))
    covered = locate(vertices, faces, matrices, face_ids)
    values = torch.cat([covered.barycentrics, covered.depths[:, None]], -1)
    barycentrics, depths = covered.spread(values, tuple(face_ids.shape)).split([3, 1], -1)
    return Fragments(face_ids, barycentrics, depths[..., 0])
