"""Triangle rasterization in plain PyTorch: perspective-correct, with a depth buffer.

Which face covers a pixel is decided without gradients; barycentric coordinates, depths and colours are
then computed from the vertices in ordinary autograd.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from lgm.cameras import Cameras
from lgm.meshing.mesh import Mesh
from lgm.types import RenderOutput

# Faces with a vertex nearer than this are left out: they would have to be clipped.
NEAR = 1e-3
# Pixel-face pairs tested at a time, which bounds the memory.
_MAX_PAIRS = 1 << 22


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
    x, y, z = _project(vertices, cameras, height, width)
    with torch.no_grad():
        face_ids = torch.stack(
            [_nearest(x[i][faces], y[i][faces], z[i][faces], height, width) for i in range(len(x))]
        )
    covered = face_ids >= 0
    camera, row, column = covered.nonzero(as_tuple=True)
    corner = faces[face_ids[covered]]  # [M, 3]
    corner_x, corner_y, corner_z = (value[camera[:, None], corner] for value in (x, y, z))
    flat = _edge_weights(corner_x, corner_y, column + 0.5, row + 0.5)
    weights = flat / flat.sum(-1, keepdim=True) / corner_z  # 1/z is linear in the image
    inverse_depth = weights.sum(-1, keepdim=True)
    barycentrics = x.new_zeros(*face_ids.shape, 3).index_put((camera, row, column), weights / inverse_depth)
    depths = x.new_zeros(face_ids.shape).index_put((camera, row, column), 1 / inverse_depth[:, 0])
    return Fragments(face_ids, barycentrics, depths)


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
    """Bilinear look-up at texture coordinates as of `Mesh.uvs`; beyond the border its nearest texel."""
    grid = (2 * uvs - 1).reshape(1, -1, 1, 2)
    image = rearrange(texture, "h w c -> 1 c h w")
    values = torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return values[0, :, :, 0].T.reshape(*uvs.shape[:-1], 3)


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
    size = height * supersampling, width * supersampling
    fragments = rasterize(mesh.vertices, mesh.faces, cameras, *size)
    covered = (fragments.face_ids >= 0).to(mesh.vertices.dtype)[..., None]
    colors = sample_texture(mesh.texture, interpolate(fragments, mesh.uvs, mesh.uv_faces))
    behind = mesh.vertices.new_tensor(background)
    images = colors * covered + behind * (1 - covered)
    channels = torch.cat([images, covered, fragments.depths[..., None]], dim=-1)
    pixels = rearrange(channels, "v (h i) (w j) c -> 1 v c h w (i j)", i=supersampling, j=supersampling)
    images, alphas, depths = pixels.mean(-1).split([3, 1, 1], dim=2)
    return RenderOutput(images, alphas, depths)


def _project(
    vertices: Float[Tensor, "V 3"], cameras: Cameras, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Image coordinates in pixels, (0, 0) at the upper left corner, and depths, each [C, V]."""
    w2c = cameras.w2c.to(vertices)
    # Sums of products, not a matrix product, which a GPU may round to TF32.
    camera = (w2c[:, None, :3, :3] * vertices[None, :, None, :]).sum(-1) + w2c[:, None, :3, 3]
    z = camera[..., 2]
    safe = torch.where(z > NEAR, z, 1.0)
    K = cameras.intrinsics(height, width).to(vertices)[:, None]
    x = K[..., 0, 0] * camera[..., 0] / safe + K[..., 0, 2]
    y = K[..., 1, 1] * camera[..., 1] / safe + K[..., 1, 2]
    return x, y, z


def _nearest(
    x: Float[Tensor, "F 3"], y: Float[Tensor, "F 3"], z: Float[Tensor, "F 3"], height: int, width: int
) -> Int[Tensor, "H W"]:
    """The nearest face at each pixel's centre, or -1: all pixels of each face's bounding box are tested."""
    left = (x.amin(-1) - 0.5).ceil().clamp(0, width).long()
    top = (y.amin(-1) - 0.5).ceil().clamp(0, height).long()
    columns = ((x.amax(-1) - 0.5).floor().clamp(-1, width - 1).long() + 1 - left).clamp_min(0)
    rows = ((y.amax(-1) - 0.5).floor().clamp(-1, height - 1).long() + 1 - top).clamp_min(0)
    num_pixels = columns * rows * (z.amin(-1) > NEAR)
    kept = num_pixels.nonzero()[:, 0]
    farthest = torch.iinfo(torch.int64).max
    # Depth and face in one number: the smallest is the nearest face, and the lower index where depths tie.
    buffer = torch.full((height * width,), farthest, dtype=torch.int64, device=x.device)
    for some in _chunks(kept, num_pixels[kept]):
        pixel, face, depth = _covered(x, y, z, some, (left, top, columns), num_pixels[some], width)
        key = depth.float().view(torch.int32).long() << 32 | face
        buffer.scatter_reduce_(0, pixel, key, "amin")
    return torch.where(buffer == farthest, -1, buffer & 0xFFFFFFFF).view(height, width)


def _covered(
    x: Tensor,
    y: Tensor,
    z: Tensor,
    faces: Tensor,
    boxes: tuple[Tensor, Tensor, Tensor],
    counts: Tensor,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel, face and depth wherever one of some faces covers a pixel's centre."""
    left, top, columns = boxes
    face = faces.repeat_interleave(counts)
    index = torch.arange(len(face), device=x.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    row = top[face] + index // columns[face]
    column = left[face] + index % columns[face]
    weights = _edge_weights(x[face], y[face], column + 0.5, row + 0.5)
    area = weights.sum(-1)
    # Of either orientation: all three weights have the area's sign.
    inside = ((weights * area.sign()[:, None]).amin(-1) >= 0) & (area != 0)
    weights, face, row, column = weights[inside], face[inside], row[inside], column[inside]
    depth = area[inside] / (weights / z[face]).sum(-1)
    return row * width + column, face, depth


def _edge_weights(x: Tensor, y: Tensor, at_x: Tensor, at_y: Tensor) -> Float[Tensor, "M 3"]:
    """Twice the signed areas opposite each corner at points [M]: barycentrics in the image, times the area."""
    dx, dy = x - at_x[:, None], y - at_y[:, None]
    return torch.stack([dx[:, i] * dy[:, j] - dx[:, j] * dy[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], -1)


def _chunks(faces: Tensor, num_pixels: Tensor) -> list[Tensor]:
    """Faces in groups of about `_MAX_PAIRS` pixels."""
    if not len(faces):
        return []
    group = num_pixels.cumsum(0) // _MAX_PAIRS
    sizes = torch.bincount(group, minlength=math.ceil(int(group[-1]) + 1))
    return [some for some in faces.split(sizes.tolist()) if len(some)]
