"""Drawing meshes: coverage, depth, orientation, texture coordinates."""

import pytest
import torch

from lgm.cameras import Cameras
from lgm.meshing import Mesh
from lgm.meshing.rasterizer import draw, rasterize


def square(z: float, size: float = 0.5, texture: torch.Tensor | None = None) -> Mesh:
    """A square that faces +z, its texture the right way up."""
    vertices = torch.tensor([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * size + torch.tensor([0, 0, z])
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Mesh(vertices, faces, uvs, faces, torch.ones(2, 2, 3) if texture is None else texture)


def test_a_square_covers_the_pixels_that_its_projection_holds():
    mesh, cameras = square(0.0), Cameras.orbit([0.0], [0.0], radius=2.0)
    fragments = rasterize(mesh.vertices, mesh.faces, cameras, 64, 64)
    half = 0.5 / 2 * float(cameras.intrinsics(64, 64)[0, 0, 0])
    centers = torch.arange(64) + 0.5 - 32
    inside = (centers.abs() < half)[:, None] & (centers.abs() < half)
    assert torch.equal(fragments.face_ids[0] >= 0, inside)
    torch.testing.assert_close(fragments.depths[0][inside], torch.full((int(inside.sum()),), 2.0))


def test_the_nearer_face_hides_the_other_from_either_side():
    near, far = square(0.3), square(-0.3)
    vertices = torch.cat([near.vertices, far.vertices])
    faces = torch.cat([near.faces, far.faces + 4])
    cameras = Cameras.orbit([0.0, 0.0], [0.0, 180.0], radius=2.0)
    ids = rasterize(vertices, faces, cameras, 32, 32).face_ids[:, 16, 16]
    assert ids[0] < 2 <= ids[1]


def test_a_texture_is_drawn_the_right_way_up():
    texture = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 0]]])
    image = draw(square(0.0, texture=texture), Cameras.orbit([0.0], [0.0], radius=2.0), 64, 64).images[0, 0]
    for row, column, color in (
        (22, 22, (1, 0, 0)),
        (22, 42, (0, 1, 0)),
        (42, 22, (0, 0, 1)),
        (42, 42, (1, 1, 0)),
    ):
        torch.testing.assert_close(image[:, row, column], torch.tensor(color).float())
    torch.testing.assert_close(image[:, 2, 2], torch.ones(3))


def test_interpolation_is_perspective_correct():
    """On a square that leans away, the middle of the texture lies on the ray to its middle."""
    tilted = square(0.0)
    turn = torch.tensor([[1.0, 0, 0], [0, 0.5, -(0.75**0.5)], [0, 0.75**0.5, 0.5]])
    camera = Cameras.orbit([0.0], [0.0], radius=2.0)
    fragments = rasterize(tilted.vertices @ turn.T, tilted.faces, camera, 65, 65)
    ids, weights = fragments.face_ids[0, 32, 32], fragments.barycentrics[0, 32, 32]
    torch.testing.assert_close(weights @ tilted.uvs[tilted.uv_faces[ids]], torch.tensor([0.5, 0.5]))


def test_gradients_reach_vertices_and_texels():
    mesh = square(0.0, texture=torch.rand(4, 4, 3))
    vertices, texture = mesh.vertices.clone().requires_grad_(), mesh.texture.clone().requires_grad_()
    output = draw(
        Mesh(vertices, mesh.faces, mesh.uvs, mesh.uv_faces, texture), Cameras.orbit([20.0], [30.0]), 32, 32
    )
    (output.images.square().sum() + output.depths.sum()).backward()
    assert texture.grad.abs().sum() > 0
    assert vertices.grad.isfinite().all() and vertices.grad.abs().sum() > 0


def test_supersampling_smooths_the_outline_alone():
    cameras = Cameras.orbit([10.0], [20.0])
    once, four = (draw(square(0.0), cameras, 32, 32, supersampling=n).alphas for n in (1, 4))
    assert set(once.unique().tolist()) == {0.0, 1.0} and len(four.unique()) > 2
    assert once.mean() == pytest.approx(float(four.mean()), abs=0.01)
