"""Surfaces and textures in the memory of the graphics device."""

from __future__ import annotations

from dataclasses import dataclass

import moderngl
import numpy as np
from PIL import Image

from data_tools.engines.textures import texture_pixels, within_its_edges
from data_tools.meshes.images import MAX_TEXTURE_SIZE
from data_tools.meshes.surfaces import Sampler, Surface

ALPHA_MODES = {"opaque": 0, "mask": 1, "blend": 2}
_SRGB8_ALPHA8 = 0x8C43  # the device turns sRGB to linear light before it filters


class TextureCache:
    """Each image is uploaded once, however many materials share it."""

    def __init__(self, context: moderngl.Context) -> None:
        self._context = context
        # Holding the image keeps its id from being given to another one.
        self._textures: dict[int, tuple[Image.Image, moderngl.Texture]] = {}

    def get(self, image: Image.Image) -> moderngl.Texture:
        """The image's texture, uploaded at its first use."""
        if id(image) not in self._textures:
            # The image is kept beside its texture: a freed object's id would be given to another.
            self._textures[id(image)] = (image, self._upload(image))
        return self._textures[id(image)][1]

    def release(self) -> None:
        """Free all textures."""
        for _, texture in self._textures.values():
            texture.release()
        self._textures.clear()

    def _upload(self, image: Image.Image) -> moderngl.Texture:
        pixels = texture_pixels(image, MAX_TEXTURE_SIZE)
        size = pixels.shape[1], pixels.shape[0]
        texture = self._context.texture(size, 4, pixels.tobytes(), internal_format=_SRGB8_ALPHA8)
        texture.build_mipmaps()
        # No anisotropic filter: Mesa's software renderer takes minutes over a stretched triangle.
        return texture


class GpuSurface:
    """One surface's triangles and material, ready to draw."""

    def __init__(
        self,
        context: moderngl.Context,
        program: moderngl.Program,
        surface: Surface,
        textures: TextureCache,
    ) -> None:
        self._program = program
        self._material = surface.material
        self.is_translucent = surface.material.alpha_mode == "blend"
        self.is_shell = surface.material.is_shell
        self._buffers = [context.buffer(_interleave(surface))]
        self._index = None
        if self.is_translucent:
            self._centroids = surface.positions.mean(axis=1).astype(np.float32)  # [F, 3]
            self.center = self._centroids.mean(axis=0)
            self._index = context.buffer(reserve=surface.num_triangles * 3 * 4, dynamic=True)
        layout = [(self._buffers[0], "3f 3f 2f 4f", "in_position", "in_normal", "in_uv", "in_color")]
        if surface.emission_uv is None:
            layout.append((self._buffers[0], "24x 2f 16x", "in_emission_uv"))
        else:
            self._buffers.append(context.buffer(surface.emission_uv.astype(np.float32)))
            layout.append((self._buffers[1], "2f", "in_emission_uv"))
        self._array = context.vertex_array(program, layout, index_buffer=self._index)
        material, uv = surface.material, surface.uv
        other_uv = uv if surface.emission_uv is None else surface.emission_uv
        self._base = _Bound.make(material.base_image, material.base_sampler, uv, textures)
        self._emission = _Bound.make(material.emission_image, material.emission_sampler, other_uv, textures)

    def draw(self) -> None:
        """Set the material's uniforms and draw the triangles."""
        program, material = self._program, self._material
        program["base_color"] = material.base_color
        program["emission"] = material.emission
        program["alpha_mode"] = ALPHA_MODES[material.alpha_mode]
        program["alpha_cutoff"] = material.alpha_cutoff
        program["has_base_image"] = self._base is not None
        program["has_emission_image"] = self._emission is not None
        program["unlit"] = material.unlit
        if self._base is not None:
            program["base_mirrored"] = self._base.use(0)
        if self._emission is not None:
            program["emission_mirrored"] = self._emission.use(1)
        self._array.render(moderngl.TRIANGLES)

    def draw_in_file_order(self) -> None:
        """For a pass that needs no order; a translucent surface's triangles are drawn in the file's."""
        if self._index is not None:
            self._index.write(np.arange(self._index.size // 4, dtype=np.uint32).tobytes())
        self.draw()

    def draw_from_far_to_near(self, camera: np.ndarray) -> None:
        """Triangle by triangle, which translucent ones need to cover each other rightly."""
        distance = ((self._centroids - camera.astype(np.float32)) ** 2).sum(axis=1)
        order = np.argsort(-distance, kind="stable").astype(np.uint32)
        self._index.write((order[:, None] * 3 + np.arange(3, dtype=np.uint32)).tobytes())
        self.draw()

    def release(self) -> None:
        """Free the surface's buffers."""
        self._array.release()
        for buffer in self._buffers:
            buffer.release()
        if self._index is not None:
            self._index.release()


@dataclass
class _Bound:
    """A texture and how it is sampled."""

    texture: moderngl.Texture
    sampler: Sampler

    @classmethod
    def make(
        cls, image: Image.Image | None, sampler: Sampler, uv: np.ndarray | None, textures: TextureCache
    ) -> _Bound | None:
        if image is None or uv is None:
            return None
        return cls(textures.get(image), within_its_edges(sampler, uv))

    def use(self, unit: int) -> tuple[int, int]:
        """Along which axes the shader must mirror, for which the device has the edge go on."""
        sampler, texture = self.sampler, self.texture
        texture.repeat_x, texture.repeat_y = sampler.wrap_u == "repeat", sampler.wrap_v == "repeat"
        # Seen smaller it is always averaged: a sampler that asks for less would only make it flicker.
        enlarged = moderngl.NEAREST if sampler.nearest else moderngl.LINEAR
        texture.filter = moderngl.LINEAR_MIPMAP_LINEAR, enlarged
        texture.use(unit)
        return int(sampler.wrap_u == "mirror"), int(sampler.wrap_v == "mirror")


def _interleave(surface: Surface) -> np.ndarray:
    """[F * 3, 12] float32: position 3, normal 3, texture coordinate 2, colour 4."""
    num_triangles = surface.num_triangles
    rows = np.empty((num_triangles, 3, 12), dtype=np.float32)
    rows[..., 0:3] = surface.positions
    # Of one length, or the longer of two corners would pull the normals in between towards itself.
    length = np.linalg.norm(surface.normals, axis=-1, keepdims=True)
    rows[..., 3:6] = surface.normals / np.maximum(length, 1e-12)
    rows[..., 6:8] = 0.0 if surface.uv is None else surface.uv
    rows[..., 8:12] = 1.0 if surface.colors is None else surface.colors
    return rows.reshape(-1, 12)
