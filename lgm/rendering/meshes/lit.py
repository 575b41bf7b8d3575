"""Textured meshes in diffuse light to images as data sets have them: the OpenGL engine of data_tools without
OpenGL.

The nearest faces come from a mesh renderer; colours are computed as by the engine's shaders: textures in
linear light with a mipmap pyramid, smooth normals turned to the side that is seen, the lamps of `lgm.lights`,
samples averaged in linear light, then straight alpha and sRGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from lgm.cameras import Cameras
from lgm.lights import WRAP, Lights
from lgm.rendering.checks import current
from lgm.rendering.meshes.batch import MeshBatch
from lgm.rendering.meshes.projection import edge_functions, pixel_matrices, project
from lgm.rendering.meshes.renderers import MeshRenderer
from lgm.rendering.meshes.shading import Covered, face_normals, interpolate, locate
from lgm.rendering.meshes.visibility import face_ids_of

# Samples drawn at a time, which bounds the memory: some 100 bytes for each that a face covers.
_MAX_SAMPLES = 1 << 22
_LEAST_ALPHA = 0.002  # the engine's: below it a pixel is empty


@dataclass(frozen=True)
class LitMeshes:
    """M meshes of T square textures, one after the other.

    vertices, normals, uvs: of one index; a vertex at a seam stands twice. uvs: (0, 0) is the upper left
    corner.
    faces, skins: indices of vertices, and of each face's texture. faces_per_mesh, texture_sizes: on the host;
    sizes are powers of 2. texels: sRGB of the textures, row by row.
    """

    vertices: Float[Tensor, "A 3"]
    normals: Float[Tensor, "A 3"]
    uvs: Float[Tensor, "A 2"]
    faces: Int[Tensor, "F 3"]
    skins: Int[Tensor, " F"]
    texels: UInt8[Tensor, "N 3"]
    faces_per_mesh: tuple[int, ...]
    texture_sizes: tuple[int, ...]

    @classmethod
    def pack(cls, meshes: Sequence[Any]) -> LitMeshes:
        """Of meshes with `positions`, `normals`, `uvs`, `faces`, `skins` and `textures` as arrays, as
        `lgm.data.sources.procedural.ProceduralMesh` has."""
        faces, skins, first_vertex, first_skin = [], [], 0, 0
        for mesh in meshes:
            faces.append(torch.from_numpy(mesh.faces) + first_vertex)
            skins.append(torch.from_numpy(mesh.skins) + first_skin)
            first_vertex += len(mesh.positions)
            first_skin += len(mesh.textures)
        textures = [texture for mesh in meshes for texture in mesh.textures]
        return cls(
            vertices=torch.cat([torch.from_numpy(mesh.positions) for mesh in meshes]),
            normals=torch.cat([torch.from_numpy(mesh.normals) for mesh in meshes]),
            uvs=torch.cat([torch.from_numpy(mesh.uvs) for mesh in meshes]),
            faces=torch.cat(faces),
            skins=torch.cat(skins),
            texels=torch.cat([torch.from_numpy(texture).view(-1, 3) for texture in textures]),
            faces_per_mesh=tuple(len(mesh.faces) for mesh in meshes),
            texture_sizes=tuple(len(texture) for texture in textures),
        )

    @property
    def num_meshes(self) -> int:
        """M, the number of meshes in the batch."""
        return len(self.faces_per_mesh)

    def to(self, device: torch.device) -> LitMeshes:
        """On another device, by asynchronous copies where the memory is pinned."""
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> LitMeshes:
        """In page-locked host memory, from which copies to a GPU are asynchronous."""
        return self._each(lambda x: x.pin_memory())

    def _each(self, change: Any) -> LitMeshes:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(x) for name, x in values.items() if isinstance(x, Tensor)})


@torch.no_grad()
def draw_lit(
    renderer: MeshRenderer, meshes: LitMeshes, cameras: Cameras, size: int, lights: Lights, supersampling: int
) -> UInt8[Tensor, "M V size size 4"]:
    """Square images of M meshes from cameras [M, V]: sRGB with straight alpha over nothing.

    supersampling: samples along a pixel's side.
    """
    with current(meshes.vertices.device), torch.autocast(meshes.vertices.device.type, enabled=False):
        pyramid = _Pyramid.of(meshes)
        batch = _geometry(meshes)
        each = cameras.shape[1] * (size * supersampling) ** 2
        images = []
        for some in torch.arange(meshes.num_meshes).split(max(1, _MAX_SAMPLES // each)):
            first, last = int(some[0]), int(some[-1]) + 1
            images.append(
                _draw(renderer, meshes, batch, pyramid, cameras, (first, last), size, lights, supersampling)
            )
        return torch.cat(images)


@torch.no_grad()
def draw_depths(
    renderer: MeshRenderer, meshes: LitMeshes, cameras: Cameras, size: int
) -> Float[Tensor, "M V size size"]:
    """Distances along the cameras' axes at the middle of each pixel; 0 for nothing."""
    return renderer(_geometry(meshes), cameras, size, size).depths[:, :, 0]


@dataclass(frozen=True)
class _Pyramid:
    """Mipmaps of all textures in linear light.

    first: where each texture's levels begin; level l of a texture of side S lies (4 S² - 4 (S / 2^l)²) / 3
    texels behind it.
    """

    texels: Float[Tensor, "N 3"]
    first: Int[Tensor, " T"]
    sizes: Int[Tensor, " T"]

    @classmethod
    def of(cls, meshes: LitMeshes) -> _Pyramid:
        device = meshes.texels.device
        linear = _linear(meshes.texels)
        textures = linear.split([size * size for size in meshes.texture_sizes])
        pools, firsts, end = [], [0] * len(textures), 0
        # All textures of one size are averaged down together, level by level.
        for size in sorted(set(meshes.texture_sizes)):
            members = [k for k, other in enumerate(meshes.texture_sizes) if other == size]
            level = torch.stack([textures[k] for k in members])
            level = rearrange(level, "t (h w) c -> t c h w", h=size)  # [t, 3, S, S]
            levels = [level]
            while level.shape[-1] > 1:
                level = avg_pool2d(level, 2)
                levels.append(level)
            pool = torch.cat([rearrange(x, "t c h w -> t (h w) c") for x in levels], dim=1)  # [t, texels, 3]
            for number, k in enumerate(members):
                firsts[k] = end + number * pool.shape[1]
            end += pool.shape[0] * pool.shape[1]
            pools.append(pool.flatten(0, 1))
        numbers = torch.tensor([firsts, list(meshes.texture_sizes)]).to(device, non_blocking=True)
        return cls(torch.cat(pools), numbers[0], numbers[1])

    def sample(
        self, skins: Int[Tensor, " P"], uvs: Float[Tensor, "P 2"], footprint: Float[Tensor, " P"]
    ) -> Float[Tensor, "P 3"]:
        """Trilinear. footprint: the longer side of a sample, in units of the whole texture."""
        size, first = self.sizes[skins], self.first[skins]
        levels = torch.log2(size.float())
        # Level 0 is full size: where a sample spans a texel or less. A footprint of 0 gives -inf, clamped.
        level = torch.log2(footprint * size).nan_to_num(0.0).clamp_min(0.0).minimum(levels)
        lower = level.floor()
        upper = (lower + 1).minimum(levels)
        near = self._bilinear(first, size, lower.long(), uvs)
        far = self._bilinear(first, size, upper.long(), uvs)
        return torch.lerp(near, far, (level - lower)[:, None])

    def _bilinear(self, first: Tensor, size: Tensor, level: Tensor, uvs: Tensor) -> Tensor:
        side = size >> level
        # Texels of the levels above this one: a geometric series.
        start = first + (4 * size * size - 4 * side * side) // 3
        most = (side - 1).float()
        x, y = (torch.minimum((uvs[:, k] * side - 0.5).clamp_min(0.0), most) for k in range(2))
        left, top = x.long(), y.long()
        right, bottom = torch.minimum(left + 1, side - 1), torch.minimum(top + 1, side - 1)
        fx, fy = (x - left)[:, None], (y - top)[:, None]
        upper_row, lower_row = start + top * side, start + bottom * side
        above = torch.lerp(self.texels[upper_row + left], self.texels[upper_row + right], fx)
        below = torch.lerp(self.texels[lower_row + left], self.texels[lower_row + right], fx)
        return torch.lerp(above, below, fy)


def _geometry(meshes: LitMeshes) -> MeshBatch:
    """The geometry, which decides on the nearest face."""
    faces = meshes.faces.long()
    return MeshBatch(
        vertices=meshes.vertices,
        faces=faces,
        faces_per_mesh=meshes.faces_per_mesh,
        uvs=meshes.uvs,
        uv_faces=faces,
        # A MeshBatch wants textures; which face is nearest asks for none.
        textures=meshes.vertices.new_zeros(meshes.num_meshes, 1, 1, 3),
    )


def _some(batch: MeshBatch, first: int, last: int) -> tuple[MeshBatch, int]:
    """Meshes `first` to `last` of a batch with all its vertices, and the index of their first face."""
    start, end = batch.first_faces[first], batch.first_faces[last]
    faces = batch.faces[start:end]
    counts = batch.faces_per_mesh[first:last]
    return MeshBatch(batch.vertices, faces, counts, batch.uvs, faces, batch.textures[first:last]), start


def _draw(
    renderer: MeshRenderer,
    meshes: LitMeshes,
    batch: MeshBatch,
    pyramid: _Pyramid,
    cameras: Cameras,
    which: tuple[int, int],
    size: int,
    lights: Lights,
    samples: int,
) -> Tensor:
    # A chunk of meshes at a time: samples, not meshes, fill the memory.
    some, first_face = _some(batch, *which)
    side = size * samples
    matrices = pixel_matrices(cameras[which[0] : which[1]], side, side)
    ids = face_ids_of(renderer.nearest_faces(some, matrices, side, side))
    covered = locate(some.vertices, some.faces, matrices, ids)
    uvs = interpolate(covered, meshes.uvs, some.faces)
    skins = meshes.skins[first_face:].long()[covered.faces]
    albedo = pyramid.sample(skins, uvs, _uv_steps(covered, some, matrices, uvs))
    normals = interpolate(covered, meshes.normals, some.faces)
    radiance = albedo * _irradiance(lights, _turned(normals, covered, some))[:, None]
    premultiplied = torch.cat([radiance, torch.ones_like(radiance[:, :1])], dim=-1)
    spread = covered.spread(premultiplied, tuple(ids.shape))  # [I, H*S, W*S, 4]
    # A box filter in linear light over premultiplied colours: empty samples add no colour.
    pixels = rearrange(spread, "i (h a) (w b) c -> i h w (a b) c", a=samples, b=samples).mean(-2)
    return _encoded(pixels).unflatten(0, (some.num_meshes, -1))


def _uv_steps(
    covered: Covered, meshes: MeshBatch, matrices: Tensor, uvs: Float[Tensor, "P 2"]
) -> Float[Tensor, " P"]:
    """How far texture coordinates move from a sample to the next, to the right or downwards."""
    X, Y, w, _ = project(matrices[covered.image][:, None], meshes.vertices[meshes.faces[covered.faces]])
    corners = meshes.uvs[meshes.uv_faces[covered.faces]]
    column, row = covered.column + 0.5, covered.row + 0.5
    lengths = []
    for right, down in ((1.0, 0.0), (0.0, 1.0)):
        weights = edge_functions(X, Y, w, column + right, row + down)
        beside = (weights[..., None] * corners).sum(1) / weights.sum(-1, keepdim=True)
        lengths.append((beside - uvs).square().sum(-1))
    return torch.maximum(*lengths).sqrt()


def _turned(normals: Tensor, covered: Covered, meshes: MeshBatch) -> Float[Tensor, "P 3"]:
    """Unit normals of the side that is seen."""
    normals = normalize(normals, dim=-1)
    planes = face_normals(covered, meshes.vertices, meshes.faces)
    return torch.where((normals * planes).sum(-1, keepdim=True) < 0, -normals, normals)


def _irradiance(lights: Lights, normals: Float[Tensor, "P 3"]) -> Float[Tensor, " P"]:
    """`lgm.lights.Lights.irradiance` of tensors."""
    # A hemisphere light, then lamps with wrapped diffuse shading.
    total = lights.ground + (lights.sky - lights.ground) * (0.5 + 0.5 * normals[:, 1])
    for strength, (x, y, z) in zip(lights.strengths.tolist(), lights.directions.tolist(), strict=True):
        cosine = normals[:, 0] * x + normals[:, 1] * y + normals[:, 2] * z
        total = total + strength * ((cosine + WRAP) / (1 + WRAP)).clamp_min(0.0)
    return total


def _encoded(premultiplied: Float[Tensor, "I H W 4"]) -> UInt8[Tensor, "I H W 4"]:
    color, alpha = premultiplied.split([3, 1], dim=-1)
    linear = (color / alpha.clamp_min(_LEAST_ALPHA)).clamp(0, 1)
    srgb = torch.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear.pow(1 / 2.4) - 0.055)
    # Straight alpha: the colour of a shard's images is not multiplied by alpha.
    straight = torch.cat([srgb, alpha], dim=-1) * (alpha >= _LEAST_ALPHA)
    return (straight * 255).round().byte()


def _linear(texels: UInt8[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """From sRGB, by a table."""
    srgb = torch.arange(256, device=texels.device) / 255
    table = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055).pow(2.4))
    return table[texels.int()]
