"""From the nearest faces, which are chosen without gradients, to colours in autograd."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample, normalize, pad

from lgm.rendering.meshes.batch import MeshBatch
from lgm.rendering.meshes.projection import edge_functions, project


@dataclass(frozen=True)
class Covered:
    """The P samples that a face covers.

    image, row, column: which samples these are. faces: indices into the batch's faces.
    barycentrics: perspective-correct weights of the face's vertices. depths: along the camera's axis.
    is_front: whether the face's outside is seen.
    """

    image: Int[Tensor, " P"]
    row: Int[Tensor, " P"]
    column: Int[Tensor, " P"]
    faces: Int[Tensor, " P"]
    barycentrics: Float[Tensor, "P 3"]
    depths: Float[Tensor, " P"]
    is_front: Tensor

    def spread(self, values: Float[Tensor, "P C"], size: tuple[int, int, int]) -> Float[Tensor, "I H W C"]:
        """Values at their samples of images [I, H, W], 0 elsewhere."""
        empty = values.new_zeros(*size, values.shape[-1])
        return empty.index_put((self.image, self.row, self.column), values)


def locate(
    vertices: Float[Tensor, "A 3"],
    faces: Int[Tensor, "F 3"],
    matrices: Float[Tensor, "I R 4"],
    face_ids: Int[Tensor, "I H W"],
) -> Covered:
    """Where on its face each covered sample lies; differentiable in the vertices."""
    image, row, column = (face_ids >= 0).nonzero(as_tuple=True)
    ids = face_ids[image, row, column]
    if len(matrices) * len(vertices) <= faces.shape[1] * len(ids):
        # One mesh in few views: each vertex is projected once, not once for each sample of its faces.
        projected = torch.stack(project(matrices[:, None], vertices), -1)  # [I, A, 4]
        corners = faces[ids] + image[:, None] * len(vertices)
        X, Y, w, z = _rows(projected.flatten(0, 1), corners).unbind(-1)  # [P, 3]
    else:
        X, Y, w, z = project(matrices[image][:, None], _rows(vertices, faces[ids]))
    weights = edge_functions(X, Y, w, column + 0.5, row + 0.5)
    total = weights.sum(-1, keepdim=True)
    barycentrics = weights / total
    depths = (barycentrics * z).sum(-1)
    return Covered(image, row, column, ids, barycentrics, depths, total[:, 0] < 0)


def interpolate(
    covered: Covered, attributes: Float[Tensor, "T C"], faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "P C"]:
    """Attributes of the faces' corners; faces: indices into `attributes`."""
    return (_rows(attributes, faces[covered.faces]) * covered.barycentrics[..., None]).sum(1)


def sample_textures(
    textures: Float[Tensor, "M H W C"], mesh_ids: Int[Tensor, " P"], uvs: Float[Tensor, "P 2"]
) -> Float[Tensor, "P C"]:
    """Bilinear look-up in one of M textures; beyond the border its nearest texel."""
    if len(textures) == 1:
        image = rearrange(textures, "1 h w c -> 1 c h w")
        grid = (2 * uvs - 1)[None, None]
        return grid_sample(image, grid, padding_mode="border", align_corners=False)[0, :, 0].T
    height, width = textures.shape[1:3]
    x, y = (uvs[:, 0] * width - 0.5).clamp(0, width - 1), (uvs[:, 1] * height - 0.5).clamp(0, height - 1)
    left, top = x.long(), y.long()
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    above = textures[mesh_ids, top, left] * (1 - fx) + textures[mesh_ids, top, right] * fx
    below = textures[mesh_ids, bottom, left] * (1 - fx) + textures[mesh_ids, bottom, right] * fx
    return above * (1 - fy) + below * fy


def _rows(values: Float[Tensor, "T C"], index: Int[Tensor, "P K"]) -> Float[Tensor, "P K C"]:
    """values[index], whose gradients a GPU adds up by atomics; those of `[]` sort all indices first."""
    return values.index_select(0, index.flatten()).view(*index.shape, values.shape[-1])


def face_normals(
    covered: Covered, vertices: Float[Tensor, "A 3"], faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "P 3"]:
    """Unit normals in the world, of the side that is seen; 0 for faces of no area."""
    a, b, c = _rows(vertices, faces[covered.faces]).unbind(1)
    normals = normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-30)
    return torch.where(covered.is_front[:, None], normals, -normals)


def premultiplied(
    meshes: MeshBatch, matrices: Float[Tensor, "I R 4"], face_ids: Int[Tensor, "I H W"]
) -> Float[Tensor, "I H W 4"]:
    """Premultiplied colours and alpha of each sample: what refinement needs of `shade`."""
    covered, colors = _textured(meshes, matrices, face_ids)
    return covered.spread(pad(colors, (0, 1), value=1.0), tuple(face_ids.shape))


def shade(
    meshes: MeshBatch,
    matrices: Float[Tensor, "I R 4"],
    background: Float[Tensor, "*images 3"],
    face_ids: Int[Tensor, "I H W"],
) -> Float[Tensor, "I H W 8"]:
    """Colours over the background, alpha, depth and normal of each sample, side by side."""
    covered, colors = _textured(meshes, matrices, face_ids)
    values = torch.cat(
        [
            pad(colors, (0, 1), value=1.0),
            covered.depths[:, None],
            face_normals(covered, meshes.vertices, meshes.faces),
        ],
        dim=-1,
    )
    samples = covered.spread(values, tuple(face_ids.shape))
    behind = background if background.ndim == 1 else background[:, None, None]
    colors = samples[..., :3] + behind * (1 - samples[..., 3:4])
    return torch.cat([colors, samples[..., 3:]], dim=-1)


def _textured(
    meshes: MeshBatch, matrices: Float[Tensor, "I R 4"], face_ids: Int[Tensor, "I H W"]
) -> tuple[Covered, Float[Tensor, "P 3"]]:
    """The samples that a face covers, and their colours."""
    num_views = len(matrices) // meshes.num_meshes
    covered = locate(meshes.vertices, meshes.faces, matrices, face_ids)
    uvs = interpolate(covered, meshes.uvs, meshes.uv_faces)
    return covered, sample_textures(meshes.textures, covered.image // num_views, uvs)
