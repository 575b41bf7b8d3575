"""A textured mesh as bytes for a page to draw: positions and texture coordinates in 16 bits, the texture
as a JPEG. All of one kind lie together, so that zlib finds what repeats. Little-endian, in this order:

    4 bytes   "LGM2"
    uint32    V vertices (split at seams), F faces, T bytes of the texture
    float32   low [3], high [3] of the positions
    uint32    vertex indices [F, 3]
    uint16    positions [V, 3], from low to high
    uint16    texture coordinates [V, 2], 0..1, (0, 0) the upper left corner
    uint8     the texture [T], a JPEG file of sRGB
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from lgm.meshing import Mesh
from lgm.meshing.files.corners import split
from lgm.reports.splats.packing import steps

MAGIC = b"LGM2"
_LARGEST_TEXTURE = 1024  # texels: a page shows the mesh 384 pixels wide
_JPEG_QUALITY = 88


@torch.no_grad()
def packed(mesh: Mesh) -> bytes:
    """One mesh for `mesh.js`. Raises ValueError for non-finite positions."""
    parts = split(mesh)
    if not np.isfinite(parts.positions).all():
        raise ValueError("a mesh with non-finite positions cannot be drawn")
    low, high = (
        (parts.positions.min(axis=0), parts.positions.max(axis=0))
        if len(parts.positions)
        else (np.zeros(3), np.zeros(3))
    )
    texture = _jpeg(mesh)
    return b"".join(
        (
            MAGIC,
            np.array([len(parts.positions), len(parts.faces), len(texture)]).astype("<u4").tobytes(),
            np.concatenate([low, high]).astype("<f4").tobytes(),
            parts.faces.astype("<u4").tobytes(),
            steps(parts.positions, low, high, 65535).astype("<u2").tobytes(),
            steps(parts.uvs, 0.0, 1.0, 65535).astype("<u2").tobytes(),
            texture,
        )
    )


def _jpeg(mesh: Mesh) -> bytes:
    pixels = (mesh.texture.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    image, file = Image.fromarray(pixels, "RGB"), io.BytesIO()
    image.thumbnail((_LARGEST_TEXTURE, _LARGEST_TEXTURE), Image.Resampling.BOX)
    # Colour at full resolution (4:4:4): subsampled chroma would bleed from chart to chart of the atlas.
    image.save(file, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()
