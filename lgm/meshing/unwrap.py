"""UV unwrapping: a surface cut into charts that are flattened and packed into a texture atlas."""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lgm.errors import first_line
from lgm.meshing.mesh import Surface
from lgm.meshing.packages import required
from lgm.meshing.xatlas_process import unwrap_by_xatlas

log = logging.getLogger(__name__)

# Texels between charts, so that neither bilinear look-ups nor small mipmaps mix them.
_PADDING = 3


@dataclass(frozen=True)
class Atlas:
    """A texture atlas: coordinates of a surface's corners in a texture of `size`² texels; see `Mesh`."""

    uvs: Float[Tensor, "T 2"]
    uv_faces: Int[Tensor, "F 3"]
    size: int

    def to(self, device: torch.device) -> Atlas:
        """On another device."""
        return Atlas(self.uvs.to(device), self.uv_faces.to(device), self.size)


def unwrap(surface: Surface, texture: int) -> Atlas:
    """Unwrap into one texture of `texture`² texels: by uvunwrap, or by xatlas before Python 3.11. Where
    that fails, each face becomes a chart of its own, with a warning."""
    unwrappers = (_by_uvunwrap, _in_flat_charts) if sys.version_info >= (3, 11) else (by_xatlas,)
    for unwrapper in unwrappers:
        try:
            return unwrapper(surface, texture)
        except BaseException as error:  # a panic of Rust is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            log.info("unwrapping failed once: %s", first_line(error))
    log.warning("unwrapping failed: each face becomes a chart of its own")
    return face_atlas(surface, texture)


def by_xatlas(surface: Surface, texture: int) -> Atlas:
    """Unwrap by xatlas, in a process of its own."""
    vertices, faces = surface.vertices.numpy(), surface.faces.numpy()
    uvs, uv_faces = unwrap_by_xatlas(vertices, faces, texture, _PADDING)
    return Atlas(torch.from_numpy(uvs), torch.from_numpy(uv_faces), texture)


def face_atlas(surface: Surface, texture: int) -> Atlas:
    """Two faces in each cell of a grid, as its two triangles: no seam matches, and no shape is kept, but any
    mesh can be unwrapped so."""
    count = surface.num_faces
    columns = max(1, math.ceil(math.sqrt(math.ceil(count / 2))))
    gap = min(0.2, 1.5 * columns / texture)  # of a cell's side
    near, far = gap / 2, 1 - gap / 2
    lower = torch.tensor([[near, near], [far - gap, near], [near, far - gap]])
    upper = torch.tensor([[far, far], [near + gap, far], [far, near + gap]])
    face = torch.arange(count)
    cell = face // 2
    corner = torch.stack([cell % columns, cell // columns], -1)[:, None]  # [F, 1, 2]
    uvs = (torch.where((face % 2 == 0)[:, None, None], lower, upper) + corner) / columns  # [F, 3, 2]
    return Atlas(uvs.flatten(0, 1), torch.arange(3 * count).view(-1, 3), texture)


def _in_flat_charts(surface: Surface, texture: int) -> Atlas:
    """With more and flatter charts, of which there is less to go wrong."""
    return _by_uvunwrap(surface, texture, max_chart_angle=40.0)


def _by_uvunwrap(surface: Surface, texture: int, **options: float) -> Atlas:
    uvunwrap = required("uvunwrap", "uvunwrap")
    mesh = uvunwrap.Mesh(
        np.ascontiguousarray(surface.vertices.numpy(), np.float32),
        np.ascontiguousarray(surface.faces.numpy(), np.uint32),
    )
    # Packing by exact shapes takes ten times as long on thousands of charts, for a few per cent of the area.
    atlas = uvunwrap.generate([mesh], page_size=texture, padding=_PADDING, packing="fast", **options)
    if atlas.page_count != 1 or max(atlas.width, atlas.height) > texture:
        raise ValueError(f"{atlas.page_count} pages of {atlas.width}x{atlas.height} texels")
    (unwrapped,) = atlas.meshes
    uvs = torch.from_numpy(np.array(unwrapped.uv, np.float32).reshape(-1, 2))
    # Of the page that it made, which is cropped, to the whole texture.
    uvs = uvs * torch.tensor([atlas.width / texture, atlas.height / texture])
    faces = torch.from_numpy(np.array(unwrapped.indices, np.int64).reshape(-1, 3))
    return Atlas(uvs, faces, texture)
