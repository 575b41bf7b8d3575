"""Procedural objects as .glb files: a material with a texture for each skin."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

import lgm
from lgm.data.sources.procedural import ProceduralMesh
from lgm.files import atomic
from lgm.glb import SAMPLER, GlbBuffer


def save_glb(mesh: ProceduralMesh, path: Path) -> None:
    """Write one .glb, which data_tools.render draws as data=procedural does."""
    buffer = GlbBuffer()
    attributes = buffer.geometry(mesh.positions, mesh.normals, mesh.uvs)
    primitives, images = [], []
    for skin, texture in enumerate(mesh.textures):
        faces = mesh.faces[mesh.skins == skin]
        indices = buffer.indices(faces, len(mesh.positions))
        primitives.append({"attributes": attributes, "indices": indices, "material": skin})
        images.append({"bufferView": buffer.view(_png(texture)), "mimeType": "image/png"})
    numbers = range(len(images))
    document = {
        "asset": {"version": "2.0", "generator": f"lgm-training {lgm.__version__}"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": path.stem}],
        "meshes": [{"primitives": primitives}],
        "materials": [
            {
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": number},
                    # Diffuse alone, as data=procedural draws them; glTF's own default is a metal.
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                }
            }
            for number in numbers
        ],
        "textures": [{"sampler": 0, "source": number} for number in numbers],
        "samplers": [SAMPLER],
        "images": images,
    }
    with atomic(path) as partial:
        partial.write_bytes(buffer.container(document))


def _png(texture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(texture, "RGB").save(file, format="PNG", compress_level=3)
    return file.getvalue()
