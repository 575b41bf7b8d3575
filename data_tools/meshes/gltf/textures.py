"""Textures: images that can be read, how they go on beyond their edges, and where texture coordinates lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from data_tools.meshes.beside import find_texture
from data_tools.meshes.gltf.document import Document, Unreadable, shown
from data_tools.meshes.images import MAX_TEXTURE_SIZE, to_rgba
from data_tools.meshes.surfaces import Sampler, UnrenderableMesh
from lgm.data.schema.decode import opened_image

_TRANSFORM = "KHR_texture_transform"
# Where a texture's image may stand instead, the best first; the last two may be all that there is.
_BETTER = ("EXT_texture_webp", "EXT_texture_avif")
_OTHER = ("MSFT_texture_dds", "KHR_texture_basisu")
_WRAPS = {33071: "clamp", 33648: "mirror", 10497: "repeat"}
_NEAREST = 9728
_MAX_PIXELS = 1 << 27  # 11,585 squared, half a gigabyte decoded
_MANY_IMAGES = 32  # of the full size; where there are more, each is held smaller


@dataclass(frozen=True)
class TextureUse:
    """A texture as a material takes it.

    uv_set: n of the primitive's TEXCOORD_n. transform: [2, 3], from its coordinates to the texture's, both
    with the origin at the top left.
    """

    image: Image.Image
    sampler: Sampler
    uv_set: int
    transform: np.ndarray

    def is_placed_like(self, other: TextureUse) -> bool:
        """Whether the same coordinates lead to the same place of both."""
        return self.uv_set == other.uv_set and bool((self.transform == other.transform).all())

    def coordinates(self, uv: np.ndarray) -> np.ndarray:
        """[V, 2] of the file to those of a Surface, whose origin is the lower left."""
        placed = uv[:, :2] @ self.transform[:, :2].T + self.transform[:, 2]
        return np.stack([placed[:, 0], 1 - placed[:, 1]], axis=1).astype(np.float32)


class Textures:
    """Each image is read once for its colours and once for colours with alpha, whatever shares it."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._images: dict[tuple[int, bool], Image.Image | str] = {}
        num_images = len(document.entries("images"))
        self._max_size = MAX_TEXTURE_SIZE
        while num_images * self._max_size**2 > _MANY_IMAGES * MAX_TEXTURE_SIZE**2 and self._max_size > 128:
            self._max_size //= 2
        if self._max_size < MAX_TEXTURE_SIZE:
            document.notes.append(
                f"has {num_images} images; those over {self._max_size} pixels are reduced to it"
            )

    def use(self, info: dict[str, Any] | None, with_alpha: bool) -> TextureUse | None:
        """info: a textureInfo of the file. with_alpha: RGBA, else RGB as it stands, whatever its alpha.

        None where there is no texture, or none that can be read, which is noted.
        """
        if info is None:
            return None
        texture = self._document.entry("textures", info.get("index"))
        image = self._first_readable(texture, with_alpha)
        if image is None:
            return None
        transform = info.get("extensions", {}).get(_TRANSFORM, {})
        uv_set = transform.get("texCoord", info.get("texCoord", 0))
        return TextureUse(image, self._sampler(texture), int(uv_set), _matrix(transform))

    def _first_readable(self, texture: dict[str, Any], with_alpha: bool) -> Image.Image | None:
        extensions = texture.get("extensions", {})
        sources = [extensions.get(name, {}).get("source") for name in _BETTER]
        sources += [texture.get("source"), *(extensions.get(name, {}).get("source") for name in _OTHER)]
        sources = [source for source in sources if source is not None]
        reasons = []
        for source in sources:
            image = self._image(source, with_alpha)
            if not isinstance(image, str):
                return image
            reasons.append(image)
        if not sources:
            name = texture.get("name") or next(iter(extensions), "without an image")
            reasons = [f"texture {name!r} has no image that is known here"]
        self._document.notes.append(f"{reasons[0]}; its material's colour is used")
        return None

    def _image(self, index: int, with_alpha: bool) -> Image.Image | str:
        """An image, or what is wrong with it."""
        key = (index, with_alpha)
        if key not in self._images:
            entry = self._document.entry("images", index)
            try:
                self._images[key] = self._decoded(entry, with_alpha)
            except (Unreadable, UnrenderableMesh) as error:
                name = entry.get("name") or shown(entry.get("uri", "")) or f"number {index}"
                self._images[key] = f"texture {name!r} {entry.get('mimeType', '')} {error}".replace("  ", " ")
        return self._images[key]

    def _decoded(self, entry: dict[str, Any], with_alpha: bool) -> Image.Image:
        if "bufferView" in entry:
            content, _ = self._document.view(entry["bufferView"])
        elif "uri" in entry:
            content = self._document.resource(entry["uri"], find_texture)
        else:
            raise Unreadable("has neither a bufferView nor a uri")
        if content[:12].tobytes().startswith(b"\xabKTX"):
            raise Unreadable("is KTX2 (KHR_texture_basisu), which is not read")
        try:
            with opened_image(
                content.tobytes(), "it", max_pixels=_MAX_PIXELS, formats=None, kind=ValueError
            ) as image:
                image.load()
                # Reduced without alpha: colours would be weighted with it, and lost where it is 0.
                image = to_rgba(image) if with_alpha else to_rgba(image).convert("RGB")
        except ValueError as error:
            raise Unreadable(f"cannot be read ({error})") from error
        image.thumbnail((self._max_size, self._max_size), Image.Resampling.BOX)
        return image

    def _sampler(self, texture: dict[str, Any]) -> Sampler:
        if "sampler" not in texture:
            return Sampler()
        entry = self._document.entry("samplers", texture["sampler"])
        wrap_u, wrap_v = (_WRAPS.get(entry.get(name, 10497), "repeat") for name in ("wrapS", "wrapT"))
        return Sampler(wrap_u, wrap_v, nearest=entry.get("magFilter") == _NEAREST)


def _matrix(transform: dict[str, Any]) -> np.ndarray:
    """[2, 3] of KHR_texture_transform: scaled, turned counter-clockwise as seen on the image, moved."""
    offset, scale = transform.get("offset", (0.0, 0.0)), transform.get("scale", (1.0, 1.0))
    angle = float(transform.get("rotation", 0.0))
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array(
        [[cosine * scale[0], sine * scale[1], offset[0]], [-sine * scale[0], cosine * scale[1], offset[1]]]
    )
