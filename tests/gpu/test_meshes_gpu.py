"""The mesh renderer's kernels, compiled, on a GPU."""

import math
import time

import pytest
import torch

from lgm.rendering.meshes import MeshBatch, TorchMeshRenderer, TritonMeshRenderer
from tests.mesh_scenes import LARGE, check, check_silhouettes, check_texturing, drawn, orbit, soup, sphere

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


@pytest.mark.parametrize("name", LARGE)
def test_triton_draws_what_pytorch_draws(name):
    check(name, LARGE, "cuda")


def test_triton_supersamples_alike():
    check("meshes of different sizes", LARGE, "cuda", supersampling=2)


@pytest.mark.parametrize("name", LARGE)
def test_triton_finds_the_silhouettes_that_pytorch_finds(name):
    check_silhouettes(name, LARGE, "cuda")


@pytest.mark.parametrize("name", LARGE)
def test_triton_textures_as_pytorch_does(name):
    check_texturing(name, LARGE, "cuda")


def test_the_same_each_time():
    first, second = (drawn(TritonMeshRenderer(), "large among tiny", LARGE, "cuda") for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_no_sample_falls_between_the_faces_of_a_closed_mesh():
    batch, cameras = MeshBatch.pack([sphere(200, 200)]).to("cuda"), orbit(1, 8)
    alphas = TritonMeshRenderer()(batch, cameras.to("cuda"), 512, 512).alphas[0, :, 0].cpu()
    from_middle = torch.stack(torch.meshgrid(*[torch.arange(512) + 0.5 - 256] * 2, indexing="ij")).norm(dim=0)
    focal = float(cameras.intrinsics(512, 512)[0, 0, 0, 0])
    inside = from_middle < focal * math.tan(math.asin(0.5 / 1.5)) - 1
    assert (alphas[:, inside] == 1).all()


def test_gradients_are_those_on_the_cpu():
    grads = []
    for device, renderer in (("cpu", TorchMeshRenderer()), ("cuda", TritonMeshRenderer())):
        batch = MeshBatch.pack([sphere(12, 16), soup(50, 0.3)]).to(device)
        batch.vertices.requires_grad_()
        output = renderer(batch, orbit(2, 2).to(device), 48, 48, antialias=True)
        output.images.square().sum().backward()
        grads.append(batch.vertices.grad.cpu())
    assert (grads[1] - grads[0]).norm() <= 2e-2 * grads[0].norm()


@pytest.mark.parametrize(("size", "rows"), [(128, 32), (128, 100), (512, 100)])
def test_how_fast(size, rows, capsys):
    """Objects of 16 views per second, each of 2 * columns * (rows - 1) faces; 200 are wanted at 128²."""
    meshes = [sphere(rows, rows, 0.3 + 0.01 * i, texture=256) for i in range(16)]
    batch, cameras = MeshBatch.pack(meshes).to("cuda"), orbit(16, 16).to("cuda")
    renderer, seconds = TritonMeshRenderer(), []
    for _ in range(8):
        torch.cuda.synchronize()
        start = time.perf_counter()
        renderer(batch, cameras, size, size, supersampling=2)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    rate = 16 / sorted(seconds)[len(seconds) // 2]
    with capsys.disabled():
        print(f"\n{len(meshes[0].faces)} faces, 16 views of {size}², 2 × 2 samples: {rate:.0f} objects/s")
    assert size > 128 or rate >= 200
