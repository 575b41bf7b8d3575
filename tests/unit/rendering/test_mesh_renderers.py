"""The mesh renderers: Triton through its interpreter against plain PyTorch, and both against geometry."""

import math
from dataclasses import replace

import pytest
import torch

from lgm.cameras import Cameras
from lgm.rendering.meshes import MeshBatch, TorchMeshRenderer, TritonMeshRenderer
from lgm.rendering.meshes.antialiasing import adjacent_faces
from lgm.rendering.meshes.projection import pixel_matrices, project
from lgm.rendering.meshes.triton_visibility import _MAX_SAMPLES
from lgm.rendering.meshes.visibility import _boxes
from tests.interpreter import interpreter_fault
from tests.mesh_scenes import (
    SMALL,
    check,
    check_silhouettes,
    check_texturing,
    degenerate,
    drawn,
    moved,
    orbit,
    soup,
    sphere,
)

interpreted = pytest.mark.skipif(
    interpreter_fault() is not None,
    reason=str(interpreter_fault()),
)


@interpreted
@pytest.mark.filterwarnings(
    "ignore:.*encountered in (multiply|subtract):RuntimeWarning"
)  # numbers beyond any camera
@pytest.mark.parametrize("name", SMALL)
def test_triton_draws_what_pytorch_draws(name):
    check(name, SMALL, "cpu")


def test_the_scenes_have_faces_for_both_of_triton_s_kernels():
    """Boxes that one lane walks, and larger ones that programs share."""
    areas = []
    for meshes, cameras, height, width in SMALL.values():
        batch = MeshBatch.pack(meshes)
        X, Y, w, z = project(pixel_matrices(cameras, height, width)[:1, None], batch.vertices[batch.faces])
        columns, rows = _boxes(X, Y, w, z, height, width)[2:]
        areas.append(columns * rows)
    areas = torch.cat(areas)
    assert (areas > 2 * _MAX_SAMPLES).any() and ((areas > 64) & (areas <= _MAX_SAMPLES)).any()


@interpreted
def test_triton_supersamples_alike():
    check("not square", SMALL, "cpu", supersampling=2)


@interpreted
@pytest.mark.parametrize("name", ["not square", "across the camera's plane", "both projections", "no face"])
def test_triton_finds_the_silhouettes_that_pytorch_finds(name):
    check_silhouettes(name, SMALL, "cpu")


@interpreted
@pytest.mark.parametrize("name", ["meshes of different sizes", "both projections", "no face"])
def test_triton_textures_as_pytorch_does(name):
    check_texturing(name, SMALL, "cpu")


@interpreted
def test_gradients_are_the_same_behind_either():
    meshes = MeshBatch.pack([soup(6, 0.3), sphere(4, 4)])
    grads = []
    for renderer in (TorchMeshRenderer(), TritonMeshRenderer()):
        leaves = replace(
            meshes,
            vertices=meshes.vertices.clone().requires_grad_(),
            textures=meshes.textures.clone().requires_grad_(),
        )
        output = renderer(leaves, orbit(2, 1), 20, 20, antialias=True)
        (output.images.square().sum() + output.depths.sum()).backward()
        grads.append((leaves.vertices.grad, leaves.textures.grad))
    for ours, expected in zip(*grads, strict=True):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_a_batch_is_drawn_as_each_mesh_alone():
    meshes, cameras, height, width = SMALL["meshes of different sizes"]
    together, _ = drawn(TorchMeshRenderer(), "meshes of different sizes", SMALL)
    for i, mesh in enumerate(meshes):
        alone, _ = drawn(TorchMeshRenderer(), "one", {"one": ([mesh], cameras[i : i + 1], height, width)})
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


def test_no_sample_falls_between_the_faces_of_a_closed_mesh():
    """Tiny faces too: inside its outline a sphere has no hole, and its back is never seen."""
    mesh, cameras = sphere(60, 60), orbit(1, 3)
    output = TorchMeshRenderer()(MeshBatch.pack([mesh]), cameras, 64, 64)
    rays = torch.stack(torch.meshgrid(*[torch.arange(64) + 0.5 - 32] * 2, indexing="ij")).norm(dim=0)
    focal = float(cameras.intrinsics(64, 64)[0, 0, 0, 0])
    outline = focal * math.tan(math.asin(0.5 / 1.5))
    assert (output.alphas[0, :, 0][:, rays < outline - 0.6] == 1).all()
    assert (output.alphas[0, :, 0][:, rays > outline] == 0).all()
    middle = output.depths[0, :, 0, 31:33, 31:33]
    torch.testing.assert_close(middle, torch.ones_like(middle), rtol=0, atol=3e-3)


def test_normals_are_of_the_side_that_is_seen():
    mesh, cameras = sphere(24, 24), orbit(1, 2)
    flipped = replace(mesh, faces=mesh.faces.flip(1), uv_faces=mesh.uv_faces.flip(1))
    for one in (mesh, flipped):
        normals = TorchMeshRenderer()(MeshBatch.pack([one]), cameras, 32, 32).normals[0, :, :, 16, 16]
        towards = cameras.centers[0] / cameras.centers[0].norm(dim=-1, keepdim=True)
        assert ((normals * towards).sum(-1) > 0.97).all()


def test_a_ground_plane_under_the_camera_is_drawn_to_its_feet():
    """Faces that reach behind the camera: each pixel below the horizon sees the plane, at its true depth."""
    plane = moved(sphere(4, 4), 1.0)
    vertices = torch.tensor([[-90.0, -1, -90], [90, -1, -90], [90, -1, 90], [-90, -1, 90]])
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    plane = replace(plane, vertices=vertices, faces=faces, uvs=vertices[:, :2] * 0, uv_faces=faces)
    camera = Cameras.from_fov(torch.eye(4)[None, None] * torch.tensor([1.0, -1, -1, 1]), 90.0)
    output = TorchMeshRenderer()(MeshBatch.pack([plane]), camera, 32, 32)
    assert (output.alphas[0, 0, 0, 17:] == 1).all() and (output.alphas[0, 0, 0, :16] == 0).all()
    down = (torch.arange(17, 32) + 0.5 - 16) / 16
    expected = (1 / down)[:, None].expand(-1, 32)
    torch.testing.assert_close(output.depths[0, 0, 0, 17:], expected, rtol=1e-4, atol=0)


def test_degenerate_faces_hide_nothing():
    whole = degenerate()
    alone = replace(whole, faces=whole.faces[:1], uv_faces=whole.uv_faces[:1])
    scenes = {"all": ([whole], orbit(1, 1), 32, 32), "one": ([alone], orbit(1, 1), 32, 32)}
    everything, ids = drawn(TorchMeshRenderer(), "all", scenes)
    one, _ = drawn(TorchMeshRenderer(), "one", scenes)
    kept = (ids == 0) | (ids == -1)
    assert (everything - one).abs().amax(2)[kept].max() == 0


@pytest.mark.parametrize("radius", [0.31, 0.42])
def test_antialiased_coverage_and_its_gradient_are_those_of_the_outline(radius):
    """The area of a sphere's outline, and its derivative by the sphere's size, in closed form."""
    mesh, cameras, size = sphere(24, 48), orbit(1, 1), 64
    scale = torch.tensor(radius / 0.5, requires_grad=True)
    batch = MeshBatch.pack([replace(mesh, vertices=mesh.vertices * scale)])
    area = TorchMeshRenderer()(batch, cameras, size, size, antialias=True).alphas.sum()
    (grad,) = torch.autograd.grad(area, scale)
    focal = float(cameras.intrinsics(size, size)[0, 0, 0, 0])
    outline = focal * math.tan(math.asin(radius / 1.5))
    assert area.item() == pytest.approx(math.pi * outline**2, rel=0.01)
    slope = focal * (1 / 1.5) / (1 - (radius / 1.5) ** 2) ** 1.5  # of the outline, by the radius
    assert float(grad) == pytest.approx(2 * math.pi * outline * slope * 0.5, rel=0.1)


def test_a_sphere_from_orthographic_cameras():
    """As large wherever it stands, at its true depth; its antialiased area, and the derivative by the
    sphere's size, in closed form."""
    size, radius, height = 64, 0.4, 1.6
    c2w = orbit(1, 2).c2w
    mesh = sphere(16, 32, 0.5)
    areas, grads = [], []
    for distance in (0.0, 0.5):
        shift = (distance * c2w[0, 0, :3, 2]).tolist()
        scale = torch.tensor(radius / 0.5, requires_grad=True)
        vertices = mesh.vertices * scale + torch.tensor(shift)
        cameras = Cameras.orthographic(c2w[:, :1], height)
        output = TorchMeshRenderer()(
            MeshBatch.pack([replace(mesh, vertices=vertices)]), cameras, size, size, antialias=True
        )
        middle = output.depths[0, 0, 0, 31:33, 31:33]
        torch.testing.assert_close(
            middle, torch.full_like(middle, 1.5 + distance - radius), rtol=0, atol=6e-3
        )
        area = output.alphas.sum()
        areas.append(area.item())
        grads.append(float(torch.autograd.grad(area, scale)[0]))
    pixels = radius * size / height
    assert areas == pytest.approx([math.pi * pixels**2] * 2, rel=0.01)
    # By the scale, of which radius is half.
    assert grads == pytest.approx([2 * math.pi * pixels * 0.5 * size / height] * 2, rel=0.1)


def test_a_mesh_from_a_narrow_camera_far_away():
    c2w = orbit(1, 3).c2w.double()
    u, _, v = torch.linalg.svd(c2w[..., :3, :3])
    c2w[..., :3, :3] = u @ v  # to the last digit: its error is multiplied
    away = c2w.clone()
    away[..., :3, 3] -= 2000 * c2w[..., :3, 2]
    fov = math.degrees(2 * math.atan(0.7 / 2001.5))
    batch = MeshBatch.pack([soup(30, 0.2)])
    ours, far = (
        TorchMeshRenderer()(batch, cameras.to(torch.float32), 48, 48, supersampling=2)
        for cameras in (Cameras.orthographic(c2w, 1.4), Cameras.from_fov(away, fov))
    )
    error = (ours.images - far.images).abs().amax(2)
    assert (error > 0.02).float().mean() < 0.01  # samples on edges
    assert (ours.face_ids != far.face_ids).float().mean() < 0.01


def test_antialiasing_leaves_the_inside_of_a_surface():
    """Edges between faces that both are seen are no silhouettes."""
    batch = MeshBatch.pack([sphere(24, 24)])
    plain, smooth = (TorchMeshRenderer()(batch, orbit(1, 1), 64, 64, antialias=x) for x in (False, True))
    change = (plain.images - smooth.images).abs().amax(2)[0, 0]
    alpha = plain.alphas[0, 0, 0]
    inside = -torch.nn.functional.max_pool2d(-alpha[None], 5, 1, 2)[0] == 1
    assert change[inside].max() == 0 and change.max() > 0.1


def test_adjacent_faces():
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    assert adjacent_faces(faces).tolist() == [[-1, 1, -1], [0, -1, -1]]
    three = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])
    assert adjacent_faces(three)[:, 0].tolist() == [-1, -1, -1]


def test_wrong_input_is_refused_in_one_line(any_shape):
    batch, renderer = MeshBatch.pack([sphere(4, 4)]), TorchMeshRenderer()
    with pytest.raises(ValueError, match=r"1 meshes .* got \[2, 1\]"):
        renderer(batch, orbit(2, 1), 8, 8)
    with pytest.raises(ValueError, match="height=0"):
        renderer(batch, orbit(1, 1), 0, 8)
    with pytest.raises(ValueError, match="background"):
        renderer(batch, orbit(1, 1), 8, 8, torch.zeros(2))
    with pytest.raises(ValueError, match="0 meshes"):
        MeshBatch.pack([])
    with pytest.raises(ValueError, match="textures of one batch"):
        MeshBatch.pack([sphere(4, 4), sphere(4, 4, texture=9)])
    with pytest.raises(ValueError, match="faces_per_mesh"):
        replace(batch, faces_per_mesh=(3,))
