"""Launching the mesh rasterizer's kernels."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lgm.rendering.meshes.batch import MeshBatch
from lgm.rendering.meshes.projection import BOX_MARGIN, NEAR
from lgm.rendering.meshes.silhouettes import MAX_STEPS
from lgm.rendering.meshes.visibility import FARTHEST

_COVER_BLOCK = 32  # a warp: its lanes wait for the largest box among them
# That one lane walks. With 64, 20,000 faces at 512² x 4 samples took four times as long on an H200.
_MAX_SAMPLES = 256
_SLICES = 8  # programs that share a large face
_LARGE_PROGRAMS = 2048
_SHADE_BLOCK = 128
_SILHOUETTE_BLOCK = 128


def nearest_faces(
    meshes: MeshBatch, matrices: Float[Tensor, "I R 4"], height: int, width: int
) -> Int[Tensor, "I H W"]:
    """Keys of the nearest faces [I, H, W], see `visibility.nearest_faces`, without waiting for the device."""
    from lgm.rendering.meshes.triton_kernels.rasterization import cover_kernel, cover_large_kernel

    num_views, num_faces = len(matrices) // meshes.num_meshes, len(meshes.faces)
    keys = torch.full((len(matrices), height, width), FARTHEST, device=meshes.device)
    if not num_faces:
        return keys
    # Large faces are queued for a second kernel, so that no lane of the first walks thousands of samples.
    queue = torch.empty(num_views * num_faces, dtype=torch.int64, device=meshes.device)
    length = torch.zeros(1, dtype=torch.int32, device=meshes.device)
    inputs = (
        meshes.vertices.detach().contiguous(), meshes.faces.contiguous(), _mesh_ids(meshes),
        matrices.contiguous(), keys, queue, length, num_faces, num_views, height, width, NEAR, BOX_MARGIN,
    )  # fmt: skip
    cover_kernel[(-(-num_faces // _COVER_BLOCK), num_views)](
        *inputs,
        ROWS=matrices.shape[1],
        MAX_SAMPLES=_MAX_SAMPLES,
        BLOCK=_COVER_BLOCK,
        num_warps=1,
        enable_fp_fusion=False,
    )
    # A fixed number of programs: the queue's length is known to the device alone.
    programs = min(_LARGE_PROGRAMS, num_views * num_faces * _SLICES)
    cover_large_kernel[(programs,)](
        *inputs, ROWS=matrices.shape[1], SLICES=_SLICES, HIGH=4, WIDE=32, num_warps=4, enable_fp_fusion=False
    )
    return keys


def silhouette_codes(
    keys: Int[Tensor, "I H W"],
    vertices: Float[Tensor, "A 3"],
    faces: Int[Tensor, "F 3"],
    matrices: Float[Tensor, "I R 4"],
    adjacent: Int[Tensor, "F 3"],
) -> Int[Tensor, "2 I H W"]:
    """As of `lgm.rendering.meshes.silhouettes.silhouette_codes`, in one launch without waiting for the
    device, where the plain one makes hundreds and waits for sizes."""
    from lgm.rendering.meshes.triton_kernels.silhouettes import silhouette_kernel

    codes = torch.empty((2, *keys.shape), dtype=torch.int32, device=keys.device)
    if not len(faces):  # kernels are given no empty tensors
        return codes.fill_(-1)
    height, width = keys.shape[1:]
    silhouette_kernel[(-(-keys.numel() // _SILHOUETTE_BLOCK), 2)](
        keys, vertices.detach().contiguous(), faces.contiguous(), adjacent.contiguous(),
        matrices.contiguous(), codes, keys.numel(), height, width, NEAR,
        ROWS=matrices.shape[1], MAX_STEPS=MAX_STEPS, BLOCK=_SILHOUETTE_BLOCK, num_warps=4,
        enable_fp_fusion=False,
    )  # fmt: skip
    return codes


def shade(
    meshes: MeshBatch,
    matrices: Float[Tensor, "I R 4"],
    background: Tensor,
    keys: Int[Tensor, "I h w"],
    samples: int,
) -> tuple[Tensor, ...]:
    """Images [I, 3, H, W], alphas and depths [I, 1, H, W], normals [I, 3, H, W], face indices [I, H, W].

    keys: of `samples` samples along each side of a pixel, seen by `matrices`. background: [3] or [I, 3].
    """
    from lgm.rendering.meshes.triton_kernels.rasterization import shade_kernel

    num_images, height, width = len(keys), keys.shape[1] // samples, keys.shape[2] // samples
    outputs = [matrices.new_empty(num_images, channels, height, width) for channels in (3, 1, 1, 3)]
    face_ids = keys.new_empty(num_images, height, width)
    if not len(meshes.faces):  # kernels are given no empty tensors
        images, alphas, depths, normals = (x.zero_() for x in outputs)
        images += background[..., None, None]
        return images, alphas, depths, normals, face_ids.fill_(-1)
    shade_kernel[(-(-height * width // _SHADE_BLOCK), num_images)](
        meshes.vertices.detach().contiguous(), meshes.faces.contiguous(), meshes.uvs.detach().contiguous(),
        meshes.uv_faces.contiguous(), meshes.textures.detach().contiguous(), matrices.contiguous(),
        background.contiguous(), keys, *outputs, face_ids,
        0 if background.ndim == 1 else 3, num_images // meshes.num_meshes, height, width,
        *meshes.textures.shape[1:3], ROWS=matrices.shape[1], SAMPLES=samples, BLOCK=_SHADE_BLOCK, num_warps=4,
    )  # fmt: skip
    return *outputs, face_ids


def _mesh_ids(meshes: MeshBatch) -> Int[Tensor, " F"]:
    """The mesh of each face."""
    counts = torch.tensor(meshes.faces_per_mesh).to(meshes.device, non_blocking=True)
    ids = torch.arange(meshes.num_meshes, dtype=torch.int32, device=meshes.device)
    return ids.repeat_interleave(counts, output_size=len(meshes.faces))
