"""Surfaces, made by readers and drawn by engines: triangles with normals, colours and a material."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

# Linear RGBA of what has neither a colour nor a texture: a mid grey, sRGB 203.
UNCOLORED = (0.6, 0.6, 0.6, 1.0)


class UnrenderableMesh(Exception):
    """This mesh can't be rendered; the message is the reason, in a few words."""


def too_many_triangles(count: int, max_triangles: int) -> UnrenderableMesh:
    """The error for a mesh beyond --max-triangles."""
    return UnrenderableMesh(f"{count} triangles, more than --max-triangles {max_triangles}")


@dataclass(frozen=True)
class Sampler:
    """How a texture goes on beyond 0..1, along each axis: "repeat", "mirror" (every second time mirrored) or
    "clamp" (its edge goes on). nearest: texels keep their edges when they are seen enlarged."""

    wrap_u: str = "repeat"
    wrap_v: str = "repeat"
    nearest: bool = False


@dataclass(frozen=True)
class Material:
    """Diffuse only: a Gaussian without view dependence couldn't learn a highlight.

    base_color, emission: linear light, not sRGB.
    base_image, emission_image: sRGB images, multiplied with the colours.
    alpha_mode: "opaque"; "mask" (drawn where alpha >= alpha_cutoff); "blend" (translucent).
    double_sided: false where a format says that faces are seen from their front alone, around which their
        corners go counter-clockwise.
    is_shell: see data_tools.meshes.shells; its backs give way to every front along the ray.
    unlit: the base colour is seen as it is, in no light.
    """

    base_color: tuple[float, float, float, float] = UNCOLORED
    base_image: Image.Image | None = None
    emission: tuple[float, float, float] = (0.0, 0.0, 0.0)
    emission_image: Image.Image | None = None
    alpha_mode: str = "opaque"
    alpha_cutoff: float = 0.5
    double_sided: bool = True
    is_shell: bool = False
    unlit: bool = False
    base_sampler: Sampler = Sampler()
    emission_sampler: Sampler = Sampler()


@dataclass
class Surface:
    """Triangles of one material, each corner on its own (no index), so that a corner can have its
    own normal and texture coordinate.

    positions: [F, 3, 3] float64; the last axis is x, y, z.
    normals: [F, 3, 3] or None where the file has none; not necessarily of unit length.
    uv: [F, 3, 2] or None; the origin is the image's lower left corner.
    emission_uv: [F, 3, 2] where the emission's image has other coordinates than `uv`, or None.
    colors: [F, 3, 4] linear RGBA or None.
    """

    positions: np.ndarray
    material: Material
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    colors: np.ndarray | None = None
    emission_uv: np.ndarray | None = None

    @property
    def num_triangles(self) -> int:
        """F."""
        return len(self.positions)

    def take(self, keep: np.ndarray) -> Surface:
        """The triangles where keep [F] is true; this surface itself where all are."""
        if keep.all():
            return self
        parts = {
            name: getattr(self, name) for name in ("positions", "normals", "uv", "colors", "emission_uv")
        }
        parts = {name: None if values is None else values[keep] for name, values in parts.items()}
        return replace(self, **parts)


@dataclass
class Mesh:
    """surfaces: at least one, none empty. notes: what was missing but not fatal, for the report."""

    surfaces: list[Surface]
    notes: list[str] = field(default_factory=list)

    @property
    def num_triangles(self) -> int:
        """Triangles of all surfaces."""
        return sum(surface.num_triangles for surface in self.surfaces)


def image_alpha_mode(image: Image.Image) -> str:
    """How to draw an image's alpha: leaves and grids are cut out, glass is blended.

    Cutting out needs no order of drawing, so it's used wherever nearly all texels are either
    there or not there.
    """
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return "opaque"
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if alpha.min() >= 250:  # lossy images have no exact 255
        return "opaque"
    # Clearly neither; edges of leaves have some such texels, and compression makes others.
    between = ((alpha > 25) & (alpha < 230)).mean()
    return "mask" if between < 0.15 else "blend"


def colored_alpha_mode(colors: np.ndarray, notes: list[str]) -> str:
    """How to draw the alpha of corner colours [F, 3, 4].

    Programs that never set alpha leave it 0 everywhere, which can't be meant: it becomes 1 in place, with a
    note.
    """
    alpha = colors[..., 3]
    if alpha.size and alpha.max() == 0:
        alpha[...] = 1.0
        notes.append("every colour has alpha 0; drawn opaque")
    return "blend" if alpha.size and alpha.min() < 0.98 else "opaque"
