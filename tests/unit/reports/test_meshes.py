"""Textured meshes as bytes for a page."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lgm.meshing import Mesh
from lgm.meshing.files.corners import split
from lgm.reports.meshes.packing import MAGIC, packed
from tests.meshes import box


def textured_box(size: int = 64) -> Mesh:
    """It looks different from each side: colours follow x and y, and z by the seam between its sides."""
    surface = box((0.9, 0.6, 0.4), (0.05, 0.0, 0.1))
    near = surface.vertices[:, 2] > 0
    u = (surface.vertices[:, 0] + 0.5) * 0.4 + 0.5 * near
    uvs = torch.stack([u, surface.vertices[:, 1] + 0.5], -1).clamp(0.05, 0.95)
    ramp = torch.linspace(0, 1, size)
    texture = torch.stack(
        [ramp.expand(size, size), ramp[:, None].expand(size, size), 1 - ramp.expand(size, size)], -1
    )
    return Mesh(surface.vertices, surface.faces, uvs, surface.faces, texture)


def test_a_mesh_survives_packing():
    mesh = textured_box()
    content, parts = packed(mesh), split(mesh)
    assert content[:4] == MAGIC
    vertices, faces, size = np.frombuffer(content, "<u4", 3, 4)
    box = np.frombuffer(content, "<f4", 6, 16)
    assert len(content) == 40 + 12 * faces + 10 * vertices + size
    assert (np.frombuffer(content, "<u4", 3 * faces, 40).reshape(-1, 3) == parts.faces).all()
    at = 40 + 12 * faces
    positions = (
        np.frombuffer(content, "<u2", 3 * vertices, at).reshape(-1, 3) / 65535 * (box[3:] - box[:3]) + box[:3]
    )
    assert np.abs(positions - parts.positions).max() < 1e-4
    uvs = np.frombuffer(content, "<u2", 2 * vertices, at + 6 * vertices).reshape(-1, 2) / 65535
    assert np.abs(uvs - parts.uvs).max() < 1e-4
    image = Image.open(io.BytesIO(content[at + 10 * vertices :]))
    assert image.format == "JPEG" and image.size == (64, 64)
    error = np.asarray(image).astype(float) / 255 - mesh.texture.numpy()
    assert np.abs(error).mean() < 0.02


def test_a_large_texture_is_made_smaller_for_the_page():
    mesh = replace(textured_box(), texture=torch.zeros(1500, 1500, 3))
    content = packed(mesh)
    vertices, faces, _ = np.frombuffer(content, "<u4", 3, 4)
    assert Image.open(io.BytesIO(content[40 + 12 * faces + 10 * vertices :])).size == (1024, 1024)


def test_positions_that_are_not_finite_are_refused():
    mesh = textured_box()
    with pytest.raises(ValueError, match="non-finite"):
        packed(replace(mesh, vertices=mesh.vertices * torch.nan))
