"""Homogeneous rasterization (Olano and Greer 1997): edge functions of vertices that are not divided by depth.

A camera's matrix takes a vertex to (X, Y, z), with X / z and Y / z in pixels and z along the camera's axis.
Seen from a pixel's centre p, vertices are sheared to (X - p_x z, Y - p_y z), and cross products of two of
them are the face's barycentrics there, perspective-correct, times a common factor. No division means that
faces across the camera's plane need no clipping: a point of theirs is drawn where its depth is beyond `NEAR`.

Of an orthographic camera the divisor w is 1, and no longer the depth: matrices then have a fourth row.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import Cameras

# Nearer points are not drawn.
NEAR = 1e-3
# Pixels added to the bounding box of a face: its division rounds, and the edge functions decide.
BOX_MARGIN = 0.01


def pixel_matrices(cameras: Cameras, height: int, width: int) -> Float[Tensor, "I R 4"]:
    """World to (X, Y, z) of cameras [M, V]; to (X, Y, w, z), four rows, where some may be orthographic."""
    K = cameras.intrinsics(height, width).flatten(0, -3)
    w2c = cameras.w2c.flatten(0, -3)[:, :3]
    # Sums of products, not a matrix product, which a GPU may round to TF32.
    matrices = (K[:, :, :, None] * w2c[:, None]).sum(2)
    if cameras.is_orthographic is None:
        return matrices
    is_parallel = cameras.is_orthographic.flatten()[:, None, None]
    affine = torch.stack([w2c[:, 0], w2c[:, 1], torch.zeros_like(w2c[:, 2])], dim=1)
    affine[:, 2, 3] = 1
    homogeneous = torch.where(is_parallel, (K[:, :, :, None] * affine[:, None]).sum(2), matrices)
    return torch.cat([homogeneous, matrices[:, 2:]], dim=1)


def project(
    matrices: Float[Tensor, "*#batch R 4"], points: Float[Tensor, "*#batch 3"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """X, Y, what they are divided by, and the depth along the camera's axis, which are one tensor where all
    cameras are perspective. The order of operations is the Triton kernels', bit by bit."""
    x, y, z = points.unbind(-1)
    rows = [
        matrices[..., i, 0] * x + matrices[..., i, 1] * y + matrices[..., i, 2] * z + matrices[..., i, 3]
        for i in range(matrices.shape[-2])
    ]
    return rows[0], rows[1], rows[2], rows[-1]


def edge_functions(X: Tensor, Y: Tensor, w: Tensor, at_x: Tensor, at_y: Tensor) -> Float[Tensor, "N 3"]:
    """Barycentrics of faces, X, Y, w [N, 3], at points of the image [N], times a factor of either sign."""
    u, v = X - at_x[:, None] * w, Y - at_y[:, None] * w
    # Exactly opposite for the two faces of an edge, so that no sample falls between them.
    return torch.stack([u[:, i] * v[:, j] - u[:, j] * v[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], -1)
