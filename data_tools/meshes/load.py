"""From a file to a mesh that an engine can draw: read, checked, turned upright, centred and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np

from data_tools.meshes.gltf import read_gltf
from data_tools.meshes.normals import crease_normals, usable_normals
from data_tools.meshes.obj import read_obj
from data_tools.meshes.ply import read_ply
from data_tools.meshes.shells import mark_shells
from data_tools.meshes.stl import read_stl
from data_tools.meshes.surfaces import Mesh, Surface, UnrenderableMesh, too_many_triangles
from data_tools.shared.variants import Companion
from lgm.cameras.canonical import OBJECT_RADIUS
from lgm.errors import reading, shown

_LONGEST_FAULT = 600  # characters
NORMALIZATIONS = ("sphere", "box")
_READERS = {".obj": read_obj, ".ply": read_ply, ".stl": read_stl, ".glb": read_gltf, ".gltf": read_gltf}


# Numbers that overflow, in the file or on the way, are not finite: `finite_triangles` names them.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def load_mesh(
    path: Path,
    normalize: str,
    world_from_file: np.ndarray,
    max_triangles: int,
    companions: Sequence[Companion] = (),
    tints: Sequence[tuple[float, float, float]] = (),
) -> Mesh:
    """A mesh in the world's frame: +y up, centred on its box's centre.

    normalize: "sphere" puts the farthest vertex at 0.6; "box" makes the longest side 1.
    world_from_file: [4, 4], what turns the file's axes to the world's; it may stretch them too.
    companions: meshes that stand beside it; all together are then centred and scaled.
    tints: what its surfaces' linear colours are multiplied with, in turn.
    Raises UnrenderableMesh with the reason.
    """
    mesh = _turned(path, world_from_file[:3, :3], max_triangles)
    _tint(mesh.surfaces, tints)
    # Each is first made as large as a sphere of its own, so that their sizes can be compared.
    if companions:
        _fit(mesh.surfaces, "sphere")
        low, high = _bounds(mesh.surfaces)
        for companion in companions:
            try:
                other = _turned(companion.path, companion.linear, max_triangles)
            except UnrenderableMesh as error:
                raise UnrenderableMesh(f"{companion.path.name} beside it: {error}") from error
            _tint(other.surfaces, companion.tints)
            _fit(other.surfaces, "sphere")
            _place(other.surfaces, companion, float(high[1] if companion.on_top else low[1]))
            mesh.surfaces += other.surfaces
            mesh.notes += other.notes
    if mesh.num_triangles > max_triangles:
        raise too_many_triangles(mesh.num_triangles, max_triangles)
    _fit(mesh.surfaces, normalize)
    _complete_normals(mesh.surfaces)
    return mesh


def _turned(path: Path, linear: np.ndarray, max_triangles: int) -> Mesh:
    """A file's mesh, along the world's axes, without what has no area."""
    mesh = _read(path, max_triangles)
    mesh.surfaces = finite_triangles(mesh.surfaces, mesh.notes)
    mesh.surfaces = [_without_degenerate(surface) for surface in mesh.surfaces]
    mesh.surfaces = [surface for surface in mesh.surfaces if surface.num_triangles]
    if not mesh.surfaces:
        raise UnrenderableMesh("no triangle with an area")
    # Before they are turned: a shell is found by how faces are wound, which a mirror would change.
    mesh.surfaces, notes = mark_shells(mesh.surfaces)
    mesh.notes += notes
    for surface in mesh.surfaces:
        _turn(surface, linear)
    return mesh


def _tint(surfaces: list[Surface], tints: Sequence[tuple[float, float, float]]) -> None:
    """In place. No colour becomes brighter than white; an image's brightest parts are cut off there."""
    for surface, tint in zip(surfaces, cycle(tints), strict=False):  # no tints, no change
        material = surface.material
        *color, alpha = material.base_color
        tinted = [value * factor for value, factor in zip(color, tint, strict=True)]
        if material.base_image is None and surface.colors is None:
            tinted = [min(1.0, value) for value in tinted]
        surface.material = replace(material, base_color=(*tinted, alpha))


def _place(surfaces: list[Surface], companion: Companion, ground: float) -> None:
    """In place, from the middle of a sphere of its own."""
    low, _ = _bounds(surfaces)
    x, z = companion.offset
    shift = np.array([x, ground - low[1] * companion.size, z])
    for surface in surfaces:
        surface.positions = surface.positions * companion.size + shift


def _read(path: Path, max_triangles: int) -> Mesh:
    if not path.is_file():
        raise UnrenderableMesh("no such file")
    if path.stat().st_size == 0:
        raise UnrenderableMesh("empty file")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise UnrenderableMesh(
            f"a file named {suffix or 'without a suffix'} is not read, {' '.join(_READERS)} are"
        )
    try:
        with reading(path.name, passing=(UnrenderableMesh,)):
            mesh = _READERS[suffix](path, max_triangles)
    except (UnrenderableMesh, ValueError) as error:  # names in it are the file's
        raise UnrenderableMesh(shown(error, _LONGEST_FAULT)) from error
    mesh.notes = [shown(note, _LONGEST_FAULT) for note in mesh.notes]
    if not any(surface.num_triangles for surface in mesh.surfaces):
        raise UnrenderableMesh("no faces")
    return mesh


def finite_triangles(surfaces: Sequence[Surface], notes: list[str]) -> list[Surface]:
    """Surfaces without the triangles at NaN or infinite vertices, which are noted; a texture coordinate that
    is none becomes 0 and a colour white, noted too. Normals that are none are made anew with the others.

    Raises UnrenderableMesh where no triangle is left.
    """
    kept, num_dropped, num_repaired = [], 0, 0
    for surface in surfaces:
        finite = np.isfinite(surface.positions).all(axis=(1, 2))
        num_dropped += int((~finite).sum())
        surface = surface.take(finite)
        for name, value in (("uv", 0.0), ("emission_uv", 0.0), ("colors", 1.0)):
            numbers = getattr(surface, name)
            if numbers is not None and not (is_number := np.isfinite(numbers)).all():
                num_repaired += int((~is_number).any(axis=-1).sum())
                setattr(surface, name, np.where(is_number, numbers, value))
        kept.append(surface)
    if num_dropped:
        num_all = num_dropped + sum(surface.num_triangles for surface in kept)
        if num_dropped == num_all:
            raise UnrenderableMesh("NaN or infinity at every triangle")
        notes.append(f"NaN or infinite vertices; {num_dropped} of {num_all} triangles are left out")
    if num_repaired:
        notes.append(f"NaN or infinite texture coordinates or colours at {num_repaired} corners")
    return kept


def _without_degenerate(surface: Surface) -> Surface:
    """Triangles without an area have no normal and can't be seen."""
    edge_a = surface.positions[:, 1] - surface.positions[:, 0]
    edge_b = surface.positions[:, 2] - surface.positions[:, 0]
    area = np.linalg.norm(np.cross(edge_a, edge_b), axis=1)
    longest = np.maximum(np.einsum("fc,fc->f", edge_a, edge_a), np.einsum("fc,fc->f", edge_b, edge_b))
    # Relative to the edges: files come in millimetres and in kilometres.
    keep = area > 1e-10 * np.maximum(longest, 1e-300)
    return surface.take(keep)


def _turn(surface: Surface, linear: np.ndarray) -> None:
    surface.positions = surface.positions @ linear.T
    if surface.normals is not None:
        # What is stretched along an axis faces it less.
        surface.normals = surface.normals @ np.linalg.inv(linear)


def _bounds(surfaces: Sequence[Surface]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner [3] of the box along the axes."""
    low = np.min([s.positions.min(axis=(0, 1)) for s in surfaces], axis=0)
    return low, np.max([s.positions.max(axis=(0, 1)) for s in surfaces], axis=0)


def _fit(surfaces: list[Surface], normalize: str) -> None:
    """Centre and scale in place."""
    low, high = _bounds(surfaces)
    center = (low + high) / 2
    if normalize == "sphere":
        farthest = max(np.linalg.norm(s.positions - center, axis=-1).max() for s in surfaces)
        scale = OBJECT_RADIUS / farthest
    elif normalize == "box":
        scale = 1.0 / (high - low).max()
    else:
        raise ValueError(f"normalize={normalize!r} is none of {', '.join(NORMALIZATIONS)}")
    if not np.isfinite(scale):
        raise UnrenderableMesh("no extent")
    for surface in surfaces:
        surface.positions = (surface.positions - center) * scale


def _complete_normals(surfaces: list[Surface]) -> None:
    """Give normals to the surfaces without usable ones, together: smoothing crosses materials."""
    lacking = [surface for surface in surfaces if not usable_normals(surface.normals)]
    if not lacking:
        return
    normals = crease_normals(np.concatenate([surface.positions for surface in lacking]))
    ends = np.cumsum([surface.num_triangles for surface in lacking])
    for surface, part in zip(lacking, np.split(normals, ends[:-1]), strict=True):
        surface.normals = part
