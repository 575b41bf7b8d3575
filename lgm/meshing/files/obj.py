"""Wavefront .obj, with its material and texture beside it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from lgm.files import atomic, write_text
from lgm.meshing.files.corners import png
from lgm.meshing.mesh import Mesh


def save_obj(mesh: Mesh, path: Path) -> None:
    """Write `<name>.obj`, `<name>.mtl` and `<name>.png`. The material has neither gloss nor shading
    (`illum 0`), because the colours have the light in them."""
    # Names within the files have no spaces, at which many readers stop.
    material, image = path.with_suffix(".mtl"), path.with_suffix(".png")
    with atomic(image) as partial:
        partial.write_bytes(png(mesh))
    write_text(material, f"newmtl baked\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 0\nmap_Kd {image.name}\n")
    vertices, uvs = (x.detach().cpu().double().numpy() for x in (mesh.vertices, mesh.uvs))
    uvs = np.stack([uvs[:, 0], 1 - uvs[:, 1]], -1)  # an .obj counts from the lower left corner
    faces = np.stack([mesh.faces.cpu().numpy(), mesh.uv_faces.cpu().numpy()], -1).reshape(-1, 6) + 1
    text = io.StringIO()
    text.write(f"mtllib {material.name}\n")
    np.savetxt(text, vertices, "v %.7g %.7g %.7g")
    np.savetxt(text, uvs, "vt %.6f %.6f")
    text.write("usemtl baked\n")
    np.savetxt(text, faces, "f %d/%d %d/%d %d/%d")
    write_text(path, text.getvalue())
