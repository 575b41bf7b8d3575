"""Differentiable rasterizers of refinement: nvdiffrast in CUDA mode where it is installed, else our own."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.errors import first_line
from lgm.meshing.mesh import Mesh
from lgm.rendering.meshes import MeshBatch, make_mesh_renderer
from lgm.rendering.meshes.antialiasing import adjacent_faces, antialias
from lgm.rendering.meshes.projection import NEAR, project

log = logging.getLogger(__name__)
# nvdiffrast clips faces beyond this depth; cameras of refinement stand a few units away.
_FAR = 100.0


class RefinementRasterizer(Protocol):
    """Draws one mesh whose vertices and texture change and whose topology does not."""

    def __call__(
        self,
        vertices: Float[Tensor, "V 3"],
        texture: Float[Tensor, "H W 3"],
        matrices: Float[Tensor, "C 3 4"],
        size: int,
    ) -> Float[Tensor, "C size size 4"]:
        """Premultiplied colours and alphas, antialiased at silhouettes; matrices: see `pixel_matrices`."""
        ...


class OwnRasterizer:
    """By `lgm.rendering.meshes`, on any device."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.renderer = make_mesh_renderer(mesh.vertices.device.type)
        self.adjacent = adjacent_faces(mesh.faces)

    def __call__(self, vertices: Tensor, texture: Tensor, matrices: Tensor, size: int) -> Tensor:
        mesh = self.mesh
        batch = MeshBatch(vertices, mesh.faces, (mesh.num_faces,), mesh.uvs, mesh.uv_faces, texture[None])
        keys = self.renderer.nearest_faces(batch, matrices, size, size)
        codes = self.renderer.silhouette_codes(keys, vertices.detach(), mesh.faces, matrices, self.adjacent)
        colors = self.renderer.premultiplied(batch, matrices, keys)
        return antialias(colors, codes, vertices, mesh.faces, matrices)


class NvdiffrastRasterizer:
    """By nvdiffrast in CUDA mode; OpenGL is never asked for."""

    def __init__(self, mesh: Mesh) -> None:
        self.ops: Any = import_module("nvdiffrast.torch")
        self.context = self.ops.RasterizeCudaContext(device=mesh.vertices.device)
        self.faces, self.uv_faces = mesh.faces.int().contiguous(), mesh.uv_faces.int().contiguous()
        self.uvs = mesh.uvs[None].contiguous()

    def __call__(self, vertices: Tensor, texture: Tensor, matrices: Tensor, size: int) -> Tensor:
        X, Y, _, z = project(matrices[:, None], vertices)  # [C, V], of perspective cameras
        # Clip space with row 0 on top, as nvdiffrast's images have y = -1 in row 0.
        depth = ((_FAR + NEAR) * z - 2 * _FAR * NEAR) / (_FAR - NEAR)
        clip = torch.stack([2 * X / size - z, 2 * Y / size - z, depth, z], -1).contiguous()
        fragments, _ = self.ops.rasterize(self.context, clip, self.faces, (size, size))
        uvs, _ = self.ops.interpolate(self.uvs, fragments, self.uv_faces)
        colors = self.ops.texture(
            texture[None].contiguous(), uvs, filter_mode="linear", boundary_mode="clamp"
        )
        covered = (fragments[..., 3:] > 0).to(colors.dtype)
        return self.ops.antialias(torch.cat([colors * covered, covered], -1), fragments, clip, self.faces)


def make_rasterizer(mesh: Mesh) -> RefinementRasterizer:
    """nvdiffrast's for a mesh on a GPU where it is installed and works, else our own."""
    if mesh.vertices.is_cuda and find_spec("nvdiffrast") is not None:
        try:
            rasterizer = NvdiffrastRasterizer(mesh)
        except Exception as error:  # built for another PyTorch or GPU: whatever its extension raises
            log.warning("refinement without nvdiffrast, which does not load: %s", first_line(error))
        else:
            log.info("refinement by nvdiffrast (CUDA)")
            return rasterizer
    return OwnRasterizer(mesh)
