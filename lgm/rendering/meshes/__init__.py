"""Textured triangle meshes to images: many meshes from many cameras in one call.

A rasterizer in plain PyTorch and its Triton twin, which needs neither OpenGL nor EGL. Both decide by the same
arithmetic which face is nearest at each sample (`visibility`); barycentrics, colours and normals are then
computed from the vertices (`shading`), in autograd where a gradient is asked for, and gradients of
silhouettes come from analytic antialiasing (`antialiasing`).

Letters in shapes: M meshes, V views, I = M * V images, A vertices, F faces, T texture vertices, all of the
meshes of a batch one after the other.
"""

from lgm.rendering.meshes.batch import MeshBatch
from lgm.rendering.meshes.renderers import (
    MeshRenderer,
    MeshRenderOutput,
    TorchMeshRenderer,
    TritonMeshRenderer,
    make_mesh_renderer,
)

__all__ = [
    "MeshBatch",
    "MeshRenderOutput",
    "MeshRenderer",
    "TorchMeshRenderer",
    "TritonMeshRenderer",
    "make_mesh_renderer",
]
