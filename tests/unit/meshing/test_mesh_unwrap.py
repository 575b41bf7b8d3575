"""Texture coordinates: charts that do not overlap, and what happens when a library fails."""

import sys

import pytest
import torch

from lgm.meshing import unwrap as unwrapping
from lgm.meshing.rasterizer import rasterize_texture
from lgm.meshing.unwrap import Atlas, by_xatlas, face_atlas, unwrap
from lgm.meshing.xatlas_process import unwrap_by_xatlas
from tests.meshes import box, joined, sphere


def assert_covers(atlas: Atlas, num_faces: int):
    """Each face has texels, and their number is the sum of the faces' areas: none overlaps another."""
    assert atlas.uvs.min() >= 0 and atlas.uvs.max() <= 1
    ids = rasterize_texture(atlas.uvs, atlas.uv_faces, atlas.size, atlas.size).face_ids[0]
    a, b, c = (atlas.uvs * atlas.size)[atlas.uv_faces].unbind(1)
    u, v = b - a, c - a
    areas = (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).abs() / 2
    assert len(ids[ids >= 0].unique()) >= 0.98 * num_faces
    assert int((ids >= 0).sum()) == pytest.approx(float(areas.sum()), rel=0.03)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="uvunwrap has no wheels for Python 3.10")
def test_uvunwrap_covers_each_face_once():
    pytest.importorskip("uvunwrap")
    surface = joined(box((1, 1, 1)), sphere(0.3, 16, (2, 0, 0)))
    a, b, c = surface.corners.double().unbind(1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2
    assert_covers(unwrap(surface, 512), int((areas > 1e-9).sum()))


def test_xatlas_covers_each_face_once():
    pytest.importorskip("xatlas")
    surface = box((1, 2, 1))
    assert_covers(by_xatlas(surface, 256), surface.num_faces)


def test_xatlas_is_ended_after_its_time():
    pytest.importorskip("xatlas")
    surface = box((1, 2, 1))
    with pytest.raises(TimeoutError, match="xatlas did not end"):
        unwrap_by_xatlas(surface.vertices.numpy(), surface.faces.numpy(), 256, 3, time_limit_s=0.01)


def test_any_mesh_has_an_atlas_of_single_faces():
    surface = sphere(0.3, 8)
    assert_covers(face_atlas(surface, 512), surface.num_faces)


def test_where_a_library_panics_each_face_becomes_a_chart(monkeypatch, caplog):
    panic = type("PanicException", (BaseException,), {})  # as of Rust's bindings

    def failing(surface, texture, **options):
        raise panic("index out of bounds")

    monkeypatch.setattr(unwrapping, "_by_uvunwrap", failing)
    monkeypatch.setattr(unwrapping, "by_xatlas", failing)
    atlas = unwrap(box((1, 1, 1)), 64)
    assert (
        torch.equal(atlas.uv_faces.flatten(), torch.arange(36)) and "each face becomes a chart" in caplog.text
    )


def test_what_a_person_interrupts_stays_interrupted(monkeypatch):
    def interrupted(surface, texture, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(unwrapping, "_by_uvunwrap", interrupted)
    monkeypatch.setattr(unwrapping, "by_xatlas", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unwrap(box((1, 1, 1)), 64)
