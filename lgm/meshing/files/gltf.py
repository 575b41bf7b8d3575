"""Binary glTF 2.0."""

from __future__ import annotations

from pathlib import Path

import lgm
from lgm.files import atomic
from lgm.glb import SAMPLER, GlbBuffer
from lgm.meshing.files.corners import png, split
from lgm.meshing.mesh import Mesh


def save_glb(mesh: Mesh, path: Path) -> None:
    """Write one .glb with the texture inside. Its material is unlit (KHR_materials_unlit), because the
    colours have the light in them; where a viewer does not know that, it is rough and no metal."""
    buffer, parts = GlbBuffer(), split(mesh)
    attributes = buffer.geometry(parts.positions, parts.normals, parts.uvs)
    indices = buffer.indices(parts.faces, len(parts.positions))
    image = buffer.view(png(mesh))
    document = {
        "asset": {"version": "2.0", "generator": f"lgm-training {lgm.__version__}"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": path.stem}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [
            {
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                },
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "textures": [{"sampler": 0, "source": 0}],
        "samplers": [SAMPLER],
        "images": [{"bufferView": image, "mimeType": "image/png"}],
    }
    with atomic(path) as partial:
        partial.write_bytes(buffer.container(document))
