"""Texture baking: each texel blends the colours of the views that see its point of the surface."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lgm.meshing.capture import Capture
from lgm.meshing.fusion import Field
from lgm.meshing.mesh import Mesh, Surface
from lgm.meshing.packages import required
from lgm.meshing.rasterizer import interpolate, rasterize_texture
from lgm.meshing.topology import vertex_normals
from lgm.meshing.unwrap import Atlas

# A point is visible where it lies at most so many voxels behind what the view sees.
_TOLERANCE = 3.0
# Weights fall with this power of the cosine between normal and ray: views from the front are sharpest.
_SHARPNESS = 6
_MIN_WEIGHT = 1e-4
# What is less opaque than this is mixed with white, as it looks in the project's images: a mesh is opaque.
_OPAQUE = 0.9
_FARTHEST_STEP = 2.0  # voxels by which a point moves to the field's zero level
# On a CPU, temporary tensors of so many points stay in its cache.
_POINTS_AT_ONCE = {"cpu": 1 << 15}
_POINTS_AT_ONCE_ELSEWHERE = 1 << 19
_MOST_NEIGHBOURS = 1 << 16  # texels among which hidden ones look for their nearest


def bake(surface: Surface, atlas: Atlas, field: Field, capture: Capture) -> Mesh:
    """Give a surface of the unit frame its texture.

    Colours are looked up where the field's zero level is, not where the simplified surface is: a point that
    lies a little off would be projected beside its colour. The result is on the field's device.
    """
    device = field.values.device
    surface, atlas = surface.to(device), atlas.to(device)
    # The atlas drawn as an image: which face each texel's centre lies on.
    fragments = rasterize_texture(atlas.uvs, atlas.uv_faces, atlas.size, atlas.size)
    covered = fragments.face_ids[0] >= 0
    points = interpolate(fragments, surface.vertices, surface.faces)[0][covered]
    normals = interpolate(fragments, vertex_normals(surface), surface.faces)[0][covered]
    # Simplification moved faces off the surface that the views saw.
    points = on_zero_level(points, field)
    normals = F.normalize(normals, dim=-1)
    colors, weights = _blended(points, normals, capture, _TOLERANCE * field.voxel)
    if not (weights > _MIN_WEIGHT).any():
        # A few thick Gaussians, whose fronts differ between views by more than the tolerance.
        colors, weights = _blended(points, normals, capture, float("inf"))
    colors = _filled(colors, weights > _MIN_WEIGHT, points)
    texture = colors.new_zeros(atlas.size, atlas.size, 3)
    texture[covered] = colors.clamp(0, 1)
    return Mesh(surface.vertices, surface.faces, atlas.uvs, atlas.uv_faces, dilated(texture, covered))


def on_zero_level(points: Float[Tensor, "P 3"], field: Field, steps: int = 2) -> Float[Tensor, "P 3"]:
    """Points moved along the field's gradient to its zero level, by Newton's steps of bounded length."""
    start = points
    gradient = torch.stack(torch.gradient(field.values), 0)  # [3, X, Y, Z]
    maps = torch.cat([field.values[None], gradient])[None]  # [1, 4, X, Y, Z]
    size = points.new_tensor(field.values.shape)
    for _ in range(steps):
        index = (points - field.origin) / field.voxel
        grid = ((2 * index + 1) / size - 1).flip(-1)[
            None, None, None
        ]  # grid_sample counts axes from the last
        value, *direction = F.grid_sample(maps, grid, align_corners=False)[0, :, 0, 0]
        direction = torch.stack(direction, -1)
        step = value[:, None] * direction / direction.square().sum(-1, keepdim=True).clamp_min(1e-2)
        points = points - step * field.voxel
        moved = points - start
        length = moved.norm(dim=-1, keepdim=True)
        points = start + moved * (_FARTHEST_STEP * field.voxel / length.clamp_min(1e-12)).clamp_max(1)
    return points


def dilated(texture: Float[Tensor, "H W 3"], covered: Tensor) -> Float[Tensor, "H W 3"]:
    """Texels that no face covers take the colour of the nearest that one does: look-ups across a seam then
    find nothing foreign."""
    ndimage = required("scipy.ndimage", "scipy")
    if not covered.any():
        return texture
    row, column = ndimage.distance_transform_edt(
        ~covered.cpu().numpy(), return_distances=False, return_indices=True
    )
    row, column = (torch.from_numpy(index).to(texture.device) for index in (row, column))
    return texture[row, column]


def _blended(
    points: Float[Tensor, "P 3"], normals: Float[Tensor, "P 3"], capture: Capture, tolerance: float
) -> tuple[Float[Tensor, "P 3"], Float[Tensor, " P"]]:
    """Mean colours of the views that see each point, weighted by angle, and the weights' sums."""
    maps = torch.cat([capture.colors * capture.alphas, capture.depths, capture.alphas], 1)
    at_once = _POINTS_AT_ONCE.get(points.device.type, _POINTS_AT_ONCE_ELSEWHERE)
    parts = [
        _blend_part(some, some_normals, capture, maps, tolerance)
        for some, some_normals in zip(points.split(at_once), normals.split(at_once), strict=True)
    ]
    colors, weights = zip(*parts, strict=True)
    return torch.cat(colors), torch.cat(weights)


def _blend_part(
    points: Tensor, normals: Tensor, capture: Capture, maps: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    total = torch.zeros_like(points)
    weights = points.new_full(points.shape[:1], 1e-12)
    x, y, z = points.T.contiguous()
    normal_x, normal_y, normal_z = normals.T.contiguous()
    for view, (center_x, center_y, center_z) in enumerate(capture.cameras.centers.tolist()):
        to_x, to_y, to_z = center_x - x, center_y - y, center_z - z
        length = to_x.square().addcmul_(to_y, to_y).addcmul_(to_z, to_z).sqrt_()
        cosine = (to_x * normal_x).addcmul_(to_y, normal_y).addcmul_(to_z, normal_z).div_(length)
        seen = (cosine > 0.1).nonzero()[:, 0]
        grid, depth = capture.project(view, x[seen], y[seen], z[seen])
        sampled = F.grid_sample(maps[view : view + 1], grid, align_corners=False)[0, :, 0]  # [5, P]
        alpha = sampled[4].clamp_min(1e-6)
        behind = depth - sampled[3] / alpha
        visible = (1 - (behind / tolerance).clamp(0, 1) ** 2) * (sampled[4] > 0.2)
        # Frontal, unoccluded and opaque observations count most.
        weight = cosine[seen] ** _SHARPNESS * visible * sampled[4] ** 2
        coverage = (sampled[4] / _OPAQUE).clamp_max(1)
        seen_colors = sampled[:3] / alpha * coverage + (1 - coverage)
        total.index_add_(0, seen, rearrange(seen_colors * weight, "c p -> p c"))
        weights.index_add_(0, seen, weight)
    return total / weights[:, None], weights


def _filled(
    colors: Float[Tensor, "P 3"], known: Tensor, points: Float[Tensor, "P 3"]
) -> Float[Tensor, "P 3"]:
    """Points that no view sees take the colour of the nearest point that one does."""
    if known.all() or not known.any():
        return colors
    spatial = required("scipy.spatial", "scipy")
    # A fraction of them, in a tree that is not balanced: texels on flat faces stand in rows, of which medians
    # make slow trees.
    some = known.nonzero()[:, 0]
    some = some[:: max(1, len(some) // _MOST_NEIGHBOURS)]
    tree = spatial.cKDTree(points[some].cpu().numpy(), balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(points[~known].cpu().numpy())
    colors = colors.clone()
    colors[~known] = colors[some][torch.from_numpy(np.asarray(nearest)).to(colors.device)]
    return colors
