"""Triangle meshes, with and without a texture.

Letters in shapes: V vertices, F faces, T texture vertices, H and W the texture's height and width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Surface:
    """A triangle mesh without colour, in the frame of the Gaussians that it was made of.

    vertices: positions.
    faces: vertex indices, counter-clockwise as seen from outside.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]

    def __post_init__(self) -> None:
        _check("vertices", self.vertices, 3)
        _check("faces", self.faces, 3)

    @property
    def num_faces(self) -> int:
        """F."""
        return self.faces.shape[0]

    @property
    def corners(self) -> Float[Tensor, "F 3 3"]:
        """The three positions of each face."""
        return self.vertices[self.faces]

    def to(self, *args: Any, **kwargs: Any) -> Surface:
        """On another device, or with another float type."""
        vertices = self.vertices.to(*args, **kwargs)
        return replace(self, vertices=vertices, faces=self.faces.to(vertices.device))


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with one texture, unlit.

    Positions and texture coordinates are indexed apart, as in an .obj: a vertex on a seam stands once in
    `vertices`, so that moving it opens no gap, and several times in `uvs`.

    vertices: positions.
    faces: vertex indices, counter-clockwise as seen from outside.
    uvs: texture coordinates as in glTF: (0, 0) is the upper left corner of the texture's first pixel,
        (1, 1) the lower right corner of its last one.
    uv_faces: indices into `uvs` of the same corners as `faces`.
    texture: sRGB in 0..1, row 0 on top; between texels it is interpolated linearly, without mipmaps.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    uvs: Float[Tensor, "T 2"]
    uv_faces: Int[Tensor, "F 3"]
    texture: Float[Tensor, "H W 3"]

    def __post_init__(self) -> None:
        _check("vertices", self.vertices, 3)
        _check("faces", self.faces, 3)
        _check("uvs", self.uvs, 2)
        if self.uv_faces.shape != self.faces.shape:
            raise ValueError(
                f"Mesh.uv_faces has shape {list(self.uv_faces.shape)}, expected {list(self.faces.shape)}, "
                "the shape of Mesh.faces"
            )
        if self.texture.ndim != 3 or self.texture.shape[-1] != 3:
            raise ValueError(f"Mesh.texture has shape {list(self.texture.shape)}, expected [H, W, 3]")

    @property
    def num_faces(self) -> int:
        """F."""
        return self.faces.shape[0]

    @property
    def surface(self) -> Surface:
        """Its geometry alone."""
        return Surface(self.vertices, self.faces)

    def to(self, *args: Any, **kwargs: Any) -> Mesh:
        """On another device, or with another float type."""
        vertices = self.vertices.to(*args, **kwargs)
        return Mesh(
            vertices=vertices,
            faces=self.faces.to(vertices.device),
            uvs=self.uvs.to(*args, **kwargs),
            uv_faces=self.uv_faces.to(vertices.device),
            texture=self.texture.to(*args, **kwargs),
        )


def _check(name: str, x: Tensor, width: int) -> None:
    if x.ndim != 2 or x.shape[-1] != width:
        raise ValueError(f"{name} of a mesh has shape {list(x.shape)}, expected [N, {width}]")
