"""Inverted hulls: a shell turned inside out around the rest, of which the far side is seen as a dark outline.

Formats say of a single-sided face that its back is not seen. Found files say it of nearly everything, however
it is wound. To leave backs out would give an open surface another outline from behind than from the front,
which no Gaussians could learn. So both sides are drawn, but for shells that would hide all the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data_tools.meshes.normals import face_normals
from data_tools.meshes.surfaces import Surface

# Of a closed surface any number below 0 says that it faces inwards; of an open one it should be clear.
_INWARD = -0.02
_MARGIN = 0.01  # of the shell's size: a hull may be cut off at the feet
_FILLED = 0.6  # of the shell's box, along each axis
_CLOSED = 0.98  # of its edges


def mark_shells(surfaces: Sequence[Surface]) -> tuple[list[Surface], list[str]]:
    """The surfaces, of which the hulls' materials say so, and a note where there are any.

    A hull is single-sided, faces inwards, and nearly all of its box is filled by surfaces that do not. It is
    closed, or has as many triangles as they have: a copy of them.
    """
    candidates = [
        number
        for number, surface in enumerate(surfaces)
        if not surface.material.double_sided and _outwardness(surface.positions) < _INWARD
    ]
    contents = [surface for number, surface in enumerate(surfaces) if number not in candidates]
    shells = [number for number in candidates if _is_hull(surfaces[number], contents)]
    marked = [
        replace(surface, material=replace(surface.material, is_shell=True)) if number in shells else surface
        for number, surface in enumerate(surfaces)
    ]
    notes = (
        ["inverted hull around the rest, as outlines are drawn; its inner side is drawn"] if shells else []
    )
    return marked, notes


def _outwardness(positions: np.ndarray) -> float:
    """-1 to 1: whether triangles [F, 3, 3] face away from the middle of their box, by area and distance."""
    low, high = _box(positions)
    normals, arms = face_normals(positions), positions.mean(axis=1) - (low + high) / 2
    total = (np.linalg.norm(normals, axis=1) * np.linalg.norm(arms, axis=1)).sum()
    return float(np.einsum("fc,fc->", normals, arms) / max(total, 1e-300))


def _is_hull(shell: Surface, contents: Sequence[Surface]) -> bool:
    low, high = _box(shell.positions)
    margin = _MARGIN * (high - low).max()
    inside = []
    for surface in contents:
        a, b = _box(surface.positions)
        if (a >= low - margin).all() and (b <= high + margin).all():
            inside.append(surface)
    if not inside:
        return False
    a, b = (np.array(corners) for corners in zip(*(_box(s.positions) for s in inside), strict=True))
    if ((b.max(axis=0) - a.min(axis=0)) < _FILLED * (high - low)).any():
        return False
    num_inside = sum(surface.num_triangles for surface in inside)
    return 0.9 <= shell.num_triangles / num_inside <= 1.3 or _is_closed(shell.positions)


def _box(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return positions.min(axis=(0, 1)), positions.max(axis=(0, 1))


def _is_closed(positions: np.ndarray) -> bool:
    """Whether nearly each edge is run along once in each direction."""
    low, high = _box(positions)
    points = np.round((positions.reshape(-1, 3) - low) / (max((high - low).max(), 1e-300) * 1e-6))
    _, index = np.unique(points.astype(np.int64), axis=0, return_inverse=True)
    index = index.reshape(-1, 3).astype(np.int64)
    start, end = index.ravel(), index[:, [1, 2, 0]].ravel()
    forward, backward = (a * len(points) + b for a, b in ((start, end), (end, start)))
    return bool(np.isin(forward, backward).mean() >= _CLOSED)
