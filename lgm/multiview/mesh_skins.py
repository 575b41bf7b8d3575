"""Texture atlas for meshes of any material: one square texture per surface, without wrapping.

The mesh renderer takes no repeating textures and no materials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

_MAX_SIDE = 2048  # of a texture in texels
_MAX_TILES = 8  # repetitions of a texture within one face


@dataclass(frozen=True)
class Skinned:
    """A mesh as `lgm.rendering.meshes.lit.LitMeshes.pack` takes it; notes: what is drawn otherwise than it is
    said."""

    positions: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    uvs: Float[np.ndarray, "n 2"]
    faces: Int[np.ndarray, "f 3"]
    skins: Int[np.ndarray, " f"]
    textures: tuple[UInt8[np.ndarray, "s s 3"], ...]
    notes: tuple[str, ...]


def skinned(mesh: Any) -> Skinned:
    """mesh: surfaces of triangles with positions, normals, uv, colors and a material, see
    `data_tools.meshes.surfaces.Mesh`."""
    notes = list(dict.fromkeys(mesh.notes))
    textures, uvs = [], []
    for surface in mesh.surfaces:
        texture, corners = _skin(surface, notes)
        textures.append(texture)
        uvs.append(corners)
    counts = [surface.num_triangles for surface in mesh.surfaces]
    positions, normals = (
        np.concatenate([getattr(surface, name) for surface in mesh.surfaces]).reshape(-1, 3)
        for name in ("positions", "normals")
    )
    return Skinned(
        positions=positions.astype(np.float32),
        normals=normals.astype(np.float32),
        uvs=np.concatenate(uvs).reshape(-1, 2).astype(np.float32),
        faces=np.arange(3 * sum(counts)).reshape(-1, 3),
        skins=np.repeat(np.arange(len(counts)), counts),
        textures=tuple(textures),
        notes=tuple(notes),
    )


def _skin(surface: Any, notes: list[str]) -> tuple[UInt8[np.ndarray, "s s 3"], Float[np.ndarray, "F 3 2"]]:
    """One surface's texture, and its corners' coordinates in it; (0, 0) is the upper left corner."""
    material = surface.material
    for is_so, note in (
        (material.alpha_mode != "opaque", "its transparency is drawn opaque"),
        (any(material.emission), "its emission is left out"),
        (material.unlit, "its unlit material is lit"),
    ):
        if is_so and note not in notes:
            notes.append(note)
    color = np.asarray(material.base_color[:3])
    has_image = material.base_image is not None and surface.uv is not None
    linear, uvs = np.ones((1, 1, 3)), np.zeros((surface.num_triangles, 3, 2))
    if has_image:
        linear = _linear(np.asarray(material.base_image.convert("RGB")))
        # The files' readers count from the lower left corner.
        uvs = np.stack([surface.uv[..., 0], 1 - surface.uv[..., 1]], axis=-1)
        linear, uvs = _unwrapped(linear, uvs, material.base_sampler, notes)
    if surface.colors is not None:
        linear, uvs = _per_face(linear, uvs, surface.colors[..., :3])
        if "colours of vertices are drawn as each face's mean" not in notes:
            notes.append("colours of vertices are drawn as each face's mean")
    # The base colour multiplies the texture in linear light, as glTF says.
    return _square(_encoded(linear * color), nearest=surface.colors is not None), uvs


def _unwrapped(
    image: Float[np.ndarray, "H W 3"], uvs: Float[np.ndarray, "F 3 2"], sampler: Any, notes: list[str]
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "F 3 2"]]:
    """A texture that goes on beyond its edges as one that does not: as many copies as a face needs."""
    for axis, wrap in enumerate((sampler.wrap_u, sampler.wrap_v)):
        if wrap == "clamp":
            continue
        period = 2 if wrap == "mirror" else 1
        along = uvs[..., axis]
        # Each face moved by whole periods to begin in the first copy; within it coordinates stay continuous.
        along = along - period * np.floor(along.min(axis=1, keepdims=True) / period + 1e-6)
        tiles = max(1, int(np.ceil(along.max() - 1e-6)))
        if tiles > _MAX_TILES:
            note = f"a texture that repeats {tiles} times in a face is cut off after {_MAX_TILES}"
            if note not in notes:
                notes.append(note)
            tiles = _MAX_TILES
        # In the image's rows, v runs downwards: the first copy is the texture itself either way.
        mirrored = np.flip(image, axis=1 - axis)
        copies = [mirrored if wrap == "mirror" and k % 2 else image for k in range(tiles)]
        image = np.concatenate(copies, axis=1 - axis)
        uvs = uvs.copy()
        uvs[..., axis] = along / tiles
    return image, uvs


def _per_face(
    image: Float[np.ndarray, "H W 3"], uvs: Float[np.ndarray, "F 3 2"], colors: Float[np.ndarray, "F 3 3"]
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "F 3 2"]]:
    """A texel for each face: the mean of its corners' colours, times the texture in its middle."""
    middle = uvs.mean(axis=1)
    height, width = image.shape[:2]
    columns, rows = (
        (middle[:, k] * side).astype(int).clip(0, side - 1) for k, side in ((0, width), (1, height))
    )
    texels = colors.mean(axis=1) * image[rows, columns]
    side = _power_of_two(int(np.ceil(np.sqrt(len(texels)))), most=1 << 15)
    texture = np.zeros((side * side, 3))
    texture[: len(texels)] = texels
    numbers = np.arange(len(texels))
    centers = np.stack([numbers % side + 0.5, numbers // side + 0.5], axis=-1) / side
    return texture.reshape(side, side, 3), np.repeat(centers[:, None], 3, axis=1)


def _square(srgb: UInt8[np.ndarray, "H W 3"], nearest: bool) -> UInt8[np.ndarray, "s s 3"]:
    side = _power_of_two(max(srgb.shape[:2]), most=len(srgb) if nearest else _MAX_SIDE)
    if srgb.shape[:2] == (side, side):
        return srgb
    return np.asarray(Image.fromarray(srgb).resize((side, side), Image.Resampling.BICUBIC))


def _power_of_two(side: int, most: int) -> int:
    return min(most, 1 << max(0, side - 1).bit_length())


def _linear(srgb: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    values = srgb / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _encoded(linear: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    values = np.clip(linear, 0, 1)
    srgb = np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)
    return (srgb * 255).round().astype(np.uint8)
