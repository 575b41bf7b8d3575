"""Meshes and Gaussians of known shape, for tests of `lgm.meshing`."""

from __future__ import annotations

import math

import torch

from lgm.gaussians import Gaussians
from lgm.meshing import Surface


def sphere(
    radius: float = 0.5, rows: int = 32, center: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Surface:
    """A sphere of latitude and longitude."""
    return revolved(
        [
            (radius * math.sin(math.pi * i / rows), -radius * math.cos(math.pi * i / rows))
            for i in range(rows + 1)
        ],
        2 * rows,
        center,
    )


def revolved(
    profile: list[tuple[float, float]],
    columns: int = 48,
    center: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Surface:
    """A profile of (radius, height), upwards on the outside, turned about +y; closed where its ends have
    radius 0 or meet."""
    angles = 2 * math.pi * torch.arange(columns) / columns
    r, y = torch.tensor(profile).T
    vertices = torch.stack(
        [r[:, None] * angles.sin(), y[:, None].expand(-1, columns), r[:, None] * angles.cos()], dim=-1
    )
    row, column = (
        x.flatten() for x in torch.meshgrid(torch.arange(len(r) - 1), torch.arange(columns), indexing="ij")
    )
    here, right = row * columns + column, row * columns + (column + 1) % columns
    faces = torch.cat(
        [
            torch.stack([here, right, here + columns], -1),
            torch.stack([right, right + columns, here + columns], -1),
        ]
    )
    return Surface(vertices.flatten(0, 1) + torch.tensor(center), faces)


def box(size: tuple[float, float, float], center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Surface:
    """An axis-aligned box."""
    corners = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))])
    return Surface(corners * torch.tensor(size) + torch.tensor(center), faces)


def joined(*surfaces: Surface) -> Surface:
    """Several surfaces as one."""
    offsets = [0, *torch.tensor([len(surface.vertices) for surface in surfaces]).cumsum(0).tolist()]
    return Surface(
        torch.cat([surface.vertices for surface in surfaces]),
        torch.cat([surface.faces + offset for surface, offset in zip(surfaces, offsets, strict=False)]),
    )


def sampled(surface: Surface, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points spread evenly over a surface, and its normals there."""
    a, b, c = surface.corners.double().unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    face = torch.multinomial(normals.norm(dim=-1), count, replacement=True)
    u, v = torch.rand(2, count, dtype=torch.float64)
    u, v = torch.where(u + v > 1, 1 - u, u)[:, None], torch.where(u + v > 1, 1 - v, v)[:, None]
    points = a[face] + u * (b - a)[face] + v * (c - a)[face]
    return points.float(), torch.nn.functional.normalize(normals[face], dim=-1).float()


def flat_gaussians(surface: Surface, count: int, opacity: float = 0.95, overlap: float = 1.0) -> Gaussians:
    """Flat Gaussians on a surface, as large as they have to be to cover it; colours follow positions."""
    points, normals = sampled(surface, count)
    a, b, c = surface.corners.double().unbind(1)
    area = float(torch.linalg.cross(b - a, c - a).norm(dim=-1).sum()) / 2
    side = overlap * math.sqrt(area / count)
    scales = torch.tensor([side, side, 0.02 * side]).expand(1, count, 3)
    # The rotation that carries +z to the normal, about the axis between both.
    quats = torch.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], torch.zeros(count)], -1)
    quats = torch.where(normals[:, 2:] < -0.9999, torch.tensor([0.0, 1.0, 0.0, 0.0]), quats)
    return Gaussians(
        means=points[None],
        quats=torch.nn.functional.normalize(quats, dim=-1)[None],
        scales=scales.contiguous(),
        opacities=torch.full((1, count), opacity),
        colors=(0.5 + 0.5 * torch.sin(5 * points))[None],
    )
