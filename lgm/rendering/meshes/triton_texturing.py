"""Launching the kernels of `shading.premultiplied` and of its gradients."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lgm.rendering.checks import current
from lgm.rendering.meshes.batch import MeshBatch

_BLOCK = 128


def premultiplied(
    meshes: MeshBatch, matrices: Float[Tensor, "I R 4"], keys: Int[Tensor, "I H W"]
) -> Float[Tensor, "I H W 4"]:
    """As of `lgm.rendering.meshes.shading.premultiplied`, of keys; differentiable in vertices and textures.

    uvs must ask for no gradients, and there must be faces.
    """
    fixed = (meshes.faces, meshes.uvs, meshes.uv_faces, matrices, keys)
    return _Premultiplied.apply(
        meshes.vertices.contiguous(), meshes.textures.contiguous(), *(x.contiguous() for x in fixed)
    )


class _Premultiplied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, textures: Tensor, *fixed: Tensor) -> Tensor:
        from lgm.rendering.meshes.triton_kernels.texturing import texture_kernel

        faces, uvs, uv_faces, matrices, keys = fixed
        colors = vertices.new_empty(*keys.shape, 4)
        with current(keys.device):
            texture_kernel[_grid(keys)](
                vertices, faces, uvs, uv_faces, textures, matrices, keys, colors,
                len(keys) // len(textures), *keys.shape[1:], *textures.shape[1:3],
                ROWS=matrices.shape[1], BLOCK=_BLOCK, num_warps=4,
            )  # fmt: skip
        ctx.save_for_backward(vertices, textures, *fixed)
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_colors: Tensor) -> tuple[Tensor | None, ...]:
        from lgm.rendering.meshes.triton_kernels.texturing import texture_backward_kernel

        vertices, textures, faces, uvs, uv_faces, matrices, keys = ctx.saved_tensors
        grad_vertices, grad_textures = torch.zeros_like(vertices), torch.zeros_like(textures)
        with current(keys.device):
            texture_backward_kernel[_grid(keys)](
                vertices, faces, uvs, uv_faces, textures, matrices, keys, grad_colors.contiguous(),
                grad_vertices, grad_textures, len(keys) // len(textures), *keys.shape[1:],
                *textures.shape[1:3], ROWS=matrices.shape[1], BLOCK=_BLOCK, num_warps=4,
            )  # fmt: skip
        return grad_vertices, grad_textures, *[None] * 5


def _grid(keys: Tensor) -> tuple[int, int]:
    return -(-keys[0].numel() // _BLOCK), len(keys)
