"""Surfaces and pictures in the memory of the graphics device."""

from __future__ import annotations

import moderngl
import numpy as np
from PIL import Image

from data_tools.engines.textures import texture_pixels
from data_tools.meshes.surfaces import Surface

ALPHA_MODES = {"opaque": 0, "mask": 1, "blend": 2}
_SRGB8_ALPHA8 = 0x8C43  # the device turns sRGB to linear light before it filters


class TextureCache:
    """Each picture is uploaded once, however many materials share it."""

    def __init__(self, context: moderngl.Context, max_size: int) -> None:
        self._context = context
        self._max_size = max_size
        # Holding the picture keeps its id from being given to another one.
        self._textures: dict[int, tuple[Image.Image, moderngl.Texture]] = {}

    def get(self, image: Image.Image) -> moderngl.Texture:
        if id(image) not in self._textures:
            self._textures[id(image)] = (image, self._upload(image))
        return self._textures[id(image)][1]

    def release(self) -> None:
        for _, texture in self._textures.values():
            texture.release()
        self._textures.clear()

    def _upload(self, image: Image.Image) -> moderngl.Texture:
        pixels = texture_pixels(image, self._max_size)
        size = pixels.shape[1], pixels.shape[0]
        texture = self._context.texture(size, 4, pixels.tobytes(), internal_format=_SRGB8_ALPHA8)
        texture.build_mipmaps()
        texture.filter = moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR
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
        self._buffer = context.buffer(_interleave(surface))
        self._index = None
        if self.is_translucent:
            self._centroids = surface.positions.mean(axis=1).astype(np.float32)  # [F, 3]
            self.center = self._centroids.mean(axis=0)
            self._index = context.buffer(reserve=surface.num_triangles * 3 * 4, dynamic=True)
        self._array = context.vertex_array(
            program,
            [(self._buffer, "3f 3f 2f 4f", "in_position", "in_normal", "in_uv", "in_color")],
            index_buffer=self._index,
        )
        has_uv = surface.uv is not None
        self._base = _texture(surface.material.base_image, has_uv, textures)
        self._emission = _texture(surface.material.emission_image, has_uv, textures)

    def draw(self) -> None:
        program, material = self._program, self._material
        program["base_color"] = material.base_color
        program["emission"] = material.emission
        program["alpha_mode"] = ALPHA_MODES[material.alpha_mode]
        program["alpha_cutoff"] = material.alpha_cutoff
        program["has_base_image"] = self._base is not None
        program["has_emission_image"] = self._emission is not None
        if self._base is not None:
            self._base.use(0)
        if self._emission is not None:
            self._emission.use(1)
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
        self._array.release()
        self._buffer.release()
        if self._index is not None:
            self._index.release()


def _texture(image: Image.Image | None, has_uv: bool, textures: TextureCache) -> moderngl.Texture | None:
    return textures.get(image) if image is not None and has_uv else None


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
