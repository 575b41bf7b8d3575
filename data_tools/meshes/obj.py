"""Wavefront OBJ, read here and not by trimesh: its reader drops the texture coordinates of a whole
material when one face of it has none, and reads relative indices from the wrong end."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_tools.colors import srgb_to_linear
from data_tools.meshes.mtl import find_beside, read_materials
from data_tools.meshes.polygons import triangulate
from data_tools.meshes.surfaces import Material, Mesh, Surface, UnrenderableMesh

_NONE = -1


@dataclass
class _Group:
    """The polygons of one material: corners (vertex, texture, normal), polygon after polygon."""

    corners: list[tuple[int, int, int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


@dataclass
class _Parsed:
    vertices: list[str] = field(default_factory=list)
    texture: list[str] = field(default_factory=list)
    normals: list[str] = field(default_factory=list)
    groups: dict[str, _Group] = field(default_factory=lambda: defaultdict(_Group))
    libraries: list[str] = field(default_factory=list)


def read_obj(path: Path, max_triangles: int) -> Mesh:
    """Triangles and materials of an OBJ file; raises UnrenderableMesh."""
    notes: list[str] = []
    try:
        parsed = _parse(path, max_triangles)
        vertices, colors = _vertices(parsed.vertices)
        texture = _rows(parsed.texture, 2)
        normals = _rows(parsed.normals, 3)
        groups = [_triangles(group, vertices) for group in parsed.groups.values()]
    except (ValueError, IndexError) as error:
        raise UnrenderableMesh(f"unreadable OBJ: {error}") from error
    materials = _materials(parsed.libraries, path.parent, notes)
    surfaces = []
    for name, triangles in zip(parsed.groups, groups, strict=True):
        material = materials.get(name)
        if material is None:
            if name:
                notes.append(f"material {name!r} not found; grey is used")
            material = Material()
        surfaces += _surfaces(triangles, material, vertices, colors, texture, normals)
    return Mesh(surfaces, notes)


def _parse(path: Path, max_triangles: int) -> _Parsed:
    parsed = _Parsed()
    group_name = ""
    counts = [0, 0, 0]
    num_triangles = 0
    with path.open(encoding=_encoding(path), errors="replace") as lines:
        for line in _joined(lines):
            key, _, rest = line.strip().partition(" ")
            if key == "v":
                parsed.vertices.append(rest)
                counts[0] += 1
            elif key == "vt":
                parsed.texture.append(rest)
                counts[1] += 1
            elif key == "vn":
                parsed.normals.append(rest)
                counts[2] += 1
            elif key == "f":
                words = rest.split()
                _add_face(parsed.groups[group_name], words, counts)
                num_triangles += max(len(words) - 2, 0)
                if num_triangles > max_triangles:  # before the rest of it fills the memory
                    raise UnrenderableMesh(f"more than --max-triangles {max_triangles}")
            elif key == "usemtl":
                group_name = rest.strip()
            elif key == "mtllib":
                parsed.libraries.append(rest.strip())
    return parsed


def _encoding(path: Path) -> str:
    """Of the names in a file: UTF-8 unless its first part is none."""
    with path.open("rb") as file:
        start = file.read(1 << 16)
    try:
        start[: start.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _joined(lines):
    """Lines with a backslash at the end go on in the next."""
    held = ""
    for line in lines:
        if line.endswith("\\\n"):
            held += line[:-2] + " "
            continue
        yield held + line.replace("\t", " ")
        held = ""
    if held:
        yield held


def _add_face(group: _Group, words: list[str], counts: list[int]) -> None:
    if len(words) < 3:
        return
    for word in words:
        parts = word.split("/")
        indices = [_index(parts[i], counts[i]) if i < len(parts) else _NONE for i in range(3)]
        if indices[0] == _NONE:
            raise ValueError(f"face corner {word!r} names no vertex")
        group.corners.append(tuple(indices))
    group.sizes.append(len(words))


def _index(text: str, count: int) -> int:
    """From 1 upwards, or back from the last one read so far (-1); to an index from 0."""
    if not text:
        return _NONE
    number = int(text)
    index = number - 1 if number > 0 else count + number
    if number == 0 or index < 0:
        raise ValueError(f"index {text} points before the first element")
    return index


def _vertices(rows: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions [V, 3], and colours [V, 4] where every line has `x y z r g b`."""
    if not rows:
        raise UnrenderableMesh("no vertices")
    widths = {len(row.split()) for row in rows}
    values = _rows(rows, 6 if widths == {6} else 3)
    if values.shape[1] == 3:
        return values, None
    rgb = values[:, 3:]
    rgb = rgb / 255.0 if rgb.max() > 1.0 else rgb
    return values[:, :3], np.concatenate([srgb_to_linear(rgb), np.ones((len(rgb), 1))], axis=1)


def _rows(rows: list[str], width: int) -> np.ndarray:
    """Numbers [N, width]; a missing last one (a texture coordinate of one number) is zero."""
    table = [(row.split() + ["0"] * width)[:width] for row in rows]
    return np.array(table, dtype=np.float64).reshape(-1, width)


def _triangles(group: _Group, vertices: np.ndarray) -> np.ndarray:
    """[F, 3 corners, 3 indices: vertex, texture, normal]."""
    corners = np.array(group.corners, dtype=np.int64).reshape(-1, 3)
    if len(corners) and corners[:, 0].max() >= len(vertices):
        raise ValueError(f"a face names vertex {corners[:, 0].max() + 1} of {len(vertices)}")
    return corners[triangulate(corners[:, 0], np.array(group.sizes, dtype=np.int64), vertices)]


def _materials(libraries: list[str], folder: Path, notes: list[str]) -> dict[str, Material]:
    materials: dict[str, Material] = {}
    for library in libraries:
        found = find_beside(library, folder)
        if found is None:
            notes.append(f"material file {library!r} not found; grey is used")
        else:
            materials |= read_materials(found, notes)
    return materials


def _surfaces(
    triangles: np.ndarray,
    material: Material,
    vertices: np.ndarray,
    colors: np.ndarray | None,
    texture: np.ndarray,
    normals: np.ndarray,
) -> list[Surface]:
    """One surface for the faces with texture coordinates and one for those without."""
    has_uv = _present(triangles[..., 1], len(texture))
    has_normals = _present(triangles[..., 2], len(normals))
    surfaces = []
    for want_uv in (True, False):
        for want_normals in (True, False):
            chosen = triangles[(has_uv == want_uv) & (has_normals == want_normals)]
            if len(chosen) == 0:
                continue
            surfaces.append(
                Surface(
                    positions=vertices[chosen[..., 0]],
                    material=material,
                    normals=normals[chosen[..., 2]] if want_normals else None,
                    uv=texture[chosen[..., 1]] if want_uv else None,
                    colors=None if colors is None else colors[chosen[..., 0]],
                )
            )
    return surfaces


def _present(indices: np.ndarray, count: int) -> np.ndarray:
    """Which triangles [F] name an existing element at all three corners."""
    return ((indices != _NONE) & (indices < count)).all(axis=1)
