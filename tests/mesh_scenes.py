"""Meshes on which the Triton mesh renderer must draw what the plain one draws."""

from dataclasses import replace

import torch

from lgm.cameras import Cameras
from lgm.meshing import Mesh
from lgm.rendering.meshes import MeshBatch, TorchMeshRenderer, TritonMeshRenderer
from lgm.rendering.meshes.antialiasing import adjacent_faces
from lgm.rendering.meshes.projection import pixel_matrices

BACKGROUND = (0.2, 0.5, 1.0)


def soup(num_faces: int, size: float, spread: float = 0.5, seed: int = 0, texture: int = 8) -> Mesh:
    """Faces of random shape, position and texture coordinates."""
    generator = torch.Generator().manual_seed(seed)
    centers = (torch.rand(num_faces, 1, 3, generator=generator) - 0.5) * 2 * spread
    corners = centers + (torch.rand(num_faces, 3, 3, generator=generator) - 0.5) * 2 * size
    faces = torch.arange(3 * num_faces).view(-1, 3)
    uvs = torch.rand(3 * num_faces, 2, generator=generator) * 1.4 - 0.2
    return Mesh(
        corners.flatten(0, 1), faces, uvs, faces, torch.rand(texture, texture, 3, generator=generator)
    )


def sphere(rows: int, columns: int, radius: float = 0.5, texture: int = 8) -> Mesh:
    """A closed latitude-longitude sphere of 2 * columns * (rows - 1) faces, its vertices shared."""
    latitude = torch.linspace(0, torch.pi, rows + 1)[1:-1, None]
    longitude = torch.arange(columns) * (2 * torch.pi / columns)
    ring = torch.stack(
        [
            latitude.sin() * longitude.sin(),
            latitude.cos().expand(-1, columns),
            latitude.sin() * longitude.cos(),
        ],
        -1,
    ).flatten(0, 1)
    vertices = torch.cat([ring, torch.tensor([[0.0, 1, 0], [0, -1, 0]])]) * radius
    faces = []
    top, bottom = len(ring), len(ring) + 1
    for j in range(columns):
        k = (j + 1) % columns
        faces += [(top, j, k), (bottom, (rows - 2) * columns + k, (rows - 2) * columns + j)]
        for i in range(rows - 2):
            a, b, c, d = i * columns + j, i * columns + k, (i + 1) * columns + j, (i + 1) * columns + k
            faces += [(a, c, d), (a, d, b)]
    uvs = torch.stack(
        [torch.atan2(vertices[:, 0], vertices[:, 2]) / torch.pi / 2 + 0.5, 0.5 - vertices[:, 1]], -1
    )
    generator = torch.Generator().manual_seed(1)
    faces = torch.tensor(faces)
    return Mesh(vertices, faces, uvs, faces, torch.rand(texture, texture, 3, generator=generator))


def moved(mesh: Mesh, scale: float = 1.0, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    vertices = mesh.vertices * scale + torch.tensor(offset)
    return Mesh(vertices, mesh.faces, mesh.uvs, mesh.uv_faces, mesh.texture)


def degenerate() -> Mesh:
    """Beside a whole face: a point, a line, NaN, infinity, and numbers beyond any camera."""
    nan, inf = float("nan"), float("inf")
    corners = torch.tensor(
        [
            [[-0.4, -0.4, 0], [0.4, -0.4, 0], [0, 0.4, 0.1]],
            [[0.1, 0.1, 0.5], [0.1, 0.1, 0.5], [0.1, 0.1, 0.5]],
            [[-0.5, 0, 0.5], [0, 0, 0.5], [0.5, 0, 0.5]],
            [[nan, 0, 0.5], [0, 0, 0.5], [0.5, 0.5, 0.5]],
            [[inf, 0, 0.5], [0, 0, 0.5], [0.5, 0.5, 0.5]],
            [[-1e30, -1e30, -5], [1e30, -1e30, -5], [0, 1e30, -5]],
        ]
    )
    faces = torch.arange(18).view(-1, 3)
    return Mesh(corners.flatten(0, 1), faces, torch.rand(18, 2), faces, torch.rand(4, 4, 3))


def orbit(num_meshes: int, num_views: int, aspect: float = 1.0, radius: float = 1.5) -> Cameras:
    cameras = Cameras.orbit(
        torch.linspace(-30, 60, num_views), torch.linspace(0, 250, num_views), radius, aspect=aspect
    )
    return Cameras(
        cameras.c2w.expand(num_meshes, -1, -1, -1).contiguous(),
        cameras.K_norm.expand(num_meshes, -1, -1, -1).contiguous(),
    )


def both_projections(num_meshes: int, num_views: int) -> Cameras:
    """Orthographic cameras, and behind them perspective ones."""
    perspective = orbit(num_meshes, num_views)
    return Cameras.concatenate([Cameras.orthographic(perspective.c2w, 1.4), perspective], dim=1)


SMALL = {
    "no face": ([soup(0, 0.1)], orbit(1, 2), 16, 16),
    "meshes of different sizes": ([soup(12, 0.2), soup(5, 0.5, seed=1), sphere(4, 5)], orbit(3, 1), 16, 16),
    "not square": ([soup(20, 0.2)], orbit(1, 2, aspect=24 / 15), 15, 24),
    "over the whole image": ([moved(soup(2, 1.0, 0.1), 5.0)], orbit(1, 1), 40, 40),
    "across the camera's plane": ([soup(12, 0.6, 0.8)], orbit(1, 1, radius=0.3), 16, 16),
    "tiny": ([soup(200, 0.01)], orbit(1, 1), 24, 24),
    "behind the camera": ([moved(sphere(4, 5), 1.0, (0, 0, 9.0))], orbit(1, 1), 16, 16),
    "degenerate": ([degenerate()], orbit(1, 1), 32, 32),
    "both projections": ([soup(12, 0.3), sphere(4, 5)], both_projections(2, 1), 16, 20),
}
LARGE = {
    **SMALL,
    "sixteen spheres": ([sphere(50, 60, 0.3 + 0.02 * i) for i in range(16)], orbit(16, 4), 128, 128),
    "spheres in both projections": ([sphere(50, 60, 0.4)], both_projections(1, 2), 128, 128),
    "two hundred thousand": ([soup(200_000, 0.01)], orbit(1, 2), 256, 256),
    "large among tiny": ([soup(2000, 0.8), soup(20_000, 0.02)], orbit(2, 3), 256, 192),
}


def drawn(renderer, name, scenes, device="cpu", **options):
    """Outputs side by side [M, V, 8, H, W], and faces."""
    meshes, cameras, height, width = scenes[name]
    batch = MeshBatch.pack(meshes).to(device)
    output = renderer(batch, cameras.to(device), height, width, BACKGROUND, **options)
    values = torch.cat([output.images, output.alphas, output.depths, output.normals], dim=2)
    return values.cpu(), output.face_ids.cpu()


def check(name, scenes, device, supersampling=1):
    """But for samples on an edge or of equal depth, where rounding decides."""
    ours, our_faces = drawn(TritonMeshRenderer(), name, scenes, device, supersampling=supersampling)
    expected, faces = drawn(TorchMeshRenderer(), name, scenes, device, supersampling=supersampling)
    assert (our_faces != faces).float().mean() <= 1e-4
    same = (our_faces == faces)[:, :, None].expand_as(expected)
    assert ((ours - expected).abs()[same] > 1e-3).float().mean() <= 1e-4
    assert expected.isfinite().all() and ours.isfinite().all()


def _with_keys(name, scenes, device):
    meshes, cameras, height, width = scenes[name]
    batch = MeshBatch.pack(meshes).to(device)
    matrices = pixel_matrices(cameras.to(device), height, width)
    return batch, matrices, TorchMeshRenderer().nearest_faces(batch, matrices, height, width)


def check_silhouettes(name, scenes, device):
    """But for faces of no area and edges through a pixel's centre, where rounding decides."""
    batch, matrices, keys = _with_keys(name, scenes, device)
    inputs = keys, batch.vertices, batch.faces, matrices, adjacent_faces(batch.faces)
    ours, expected = (
        renderer.silhouette_codes(*inputs).cpu() for renderer in (TritonMeshRenderer(), TorchMeshRenderer())
    )
    assert ours.shape == expected.shape and (ours != expected).float().mean() <= 1e-4


def check_texturing(name, scenes, device):
    """Colours, and gradients by vertices and textures: as near to double precision as PyTorch is in single,
    which on faces thinner than a pixel is far from it (2 % of the vertices' gradient)."""
    batch, matrices, keys = _with_keys(name, scenes, device)
    weights = torch.randn(*keys.shape, 4, generator=torch.Generator().manual_seed(0)).to(device)

    def results(renderer, dtype):
        leaves = replace(
            batch,
            vertices=batch.vertices.to(dtype).clone().requires_grad_(),
            uvs=batch.uvs.to(dtype),
            textures=batch.textures.to(dtype).clone().requires_grad_(),
        )
        colors = renderer.premultiplied(leaves, matrices.to(dtype), keys)
        (colors * weights.to(dtype)).sum().backward()
        return colors.detach(), leaves.textures.grad, leaves.vertices.grad

    exact = results(TorchMeshRenderer(), torch.float64)
    plain = results(TorchMeshRenderer(), torch.float32)
    ours = results(TritonMeshRenderer(), torch.float32)
    for expected, theirs, mine in zip(exact, plain, ours, strict=True):
        rounding = (theirs - expected).norm()
        assert (mine - expected).norm() <= 2 * rounding + 1e-3 * expected.norm() + 1e-6
