"""The nearest face at each sample, in plain PyTorch: all samples of each face's bounding box are tested."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lgm.rendering.meshes.batch import MeshBatch
from lgm.rendering.meshes.projection import BOX_MARGIN, NEAR, edge_functions, project

# Sample-face pairs tested at a time, which bounds the memory.
_MAX_PAIRS = 1 << 22
# A depth's bits and a face's index in one number: its minimum is the nearest face, and the lower index where
# depths tie. Positive floats are ordered as their bits.
FARTHEST = torch.iinfo(torch.int64).max
FACE_BITS = 32


def nearest_faces(
    meshes: MeshBatch, matrices: Float[Tensor, "I R 4"], height: int, width: int
) -> Int[Tensor, "I H W"]:
    """Keys, depth bits above face indices into the batch, of images mesh by mesh; `FARTHEST` for none."""
    num_views = len(matrices) // meshes.num_meshes
    firsts = meshes.first_faces
    keys = torch.full((len(matrices), height * width), FARTHEST, device=meshes.device)
    vertices = meshes.vertices.detach()
    for image, (matrix, buffer) in enumerate(zip(matrices, keys, strict=True)):
        first, last = firsts[image // num_views], firsts[image // num_views + 1]
        corners = vertices[meshes.faces[first:last]]
        _draw(project(matrix, corners), first, buffer, height, width)
    return keys.view(-1, height, width)


def face_ids_of(keys: Int[Tensor, "*image"]) -> Int[Tensor, "*image"]:
    """Indices into the batch's faces; -1 where there is none."""
    return torch.where(keys == FARTHEST, -1, keys & ((1 << FACE_BITS) - 1))


def _draw(corners: tuple[Tensor, ...], first: int, buffer: Tensor, height: int, width: int) -> None:
    X, Y, w, z = corners  # each [F, 3]
    left, top, columns, rows = _boxes(X, Y, w, z, height, width)
    num_samples = columns * rows
    kept = num_samples.nonzero()[:, 0]
    for some in _chunks(kept, num_samples[kept]):
        counts = num_samples[some]
        face = some.repeat_interleave(counts)
        start = (counts.cumsum(0) - counts).repeat_interleave(counts)
        index = torch.arange(len(face), device=face.device) - start
        row = top[face] + index // columns[face]
        column = left[face] + index % columns[face]
        weights = edge_functions(X[face], Y[face], w[face], column + 0.5, row + 0.5)
        total = weights[:, 0] + weights[:, 1] + weights[:, 2]
        # Both sides are drawn: all three have the sign of their sum.
        inside = ((weights >= 0).all(-1) & (total > 0)) | ((weights <= 0).all(-1) & (total < 0))
        z_face = z[face]
        depth = weights[:, 0] * z_face[:, 0] + weights[:, 1] * z_face[:, 1] + weights[:, 2] * z_face[:, 2]
        depth = depth / total
        inside &= (depth > NEAR) & depth.isfinite()
        # A z-buffer whose depth test is a minimum of integers.
        key = depth[inside].view(torch.int32).long() << FACE_BITS | (face[inside] + first)
        buffer.scatter_reduce_(0, (row * width + column)[inside], key, "amin")


def _boxes(X: Tensor, Y: Tensor, w: Tensor, z: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Left, top, columns and rows of the samples that each face may cover.

    Faces behind the camera, not finite or of no area have none; those across its plane may cover all samples.
    """
    nearest, farthest = z.amin(-1), z.amax(-1)
    x, y = X / w, Y / w
    low = torch.stack([x.amin(-1), y.amin(-1)]) - BOX_MARGIN
    high = torch.stack([x.amax(-1), y.amax(-1)]) + BOX_MARGIN
    size = torch.tensor([[width], [height]], device=X.device)
    first = (low - 0.5).ceil().nan_to_num(0.0).clamp_min(0).minimum(size).long()
    last = (high - 0.5).floor().nan_to_num(-1.0).clamp_min(-1).minimum(size - 1).long()
    extent = (last + 1 - first).clamp_min(0)
    # A face across the camera's plane has no bounded projection: all samples are tested.
    across = nearest <= NEAR
    first, extent = torch.where(across, 0, first), torch.where(across, size, extent)
    finite = (X + Y + z).isfinite().all(-1)  # of sums: NaN and infinities stay what they are
    extent = torch.where(finite & (farthest > NEAR), extent, 0)
    return first[0], first[1], extent[0], extent[1]


def _chunks(faces: Tensor, num_samples: Tensor) -> list[Tensor]:
    """Faces in groups of about `_MAX_PAIRS` samples."""
    if not len(faces):
        return []
    group = num_samples.cumsum(0) // _MAX_PAIRS
    return [some for some in faces.split(torch.bincount(group).tolist()) if len(some)]
