"""Reader of PLY meshes: polygons, triangle strips, colours of vertices, faces or corners, and textures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.meshes.beside import IMAGE_SUFFIXES, open_texture, same_stem
from data_tools.meshes.named_files import ply_textures
from data_tools.meshes.ply_elements import Ragged, read_elements
from data_tools.meshes.ply_header import BrokenPly
from data_tools.meshes.polygons import triangulate
from data_tools.meshes.surfaces import (
    UNCOLORED,
    Material,
    Mesh,
    Surface,
    UnrenderableMesh,
    colored_alpha_mode,
    image_alpha_mode,
    too_many_triangles,
)
from data_tools.shared.colors import srgb_to_linear
from lgm.errors import shown

_POLYGONS = ("vertex_indices", "vertex_index", "vertex_indexes", "indices")
_COLORS = (
    ("red", "green", "blue", "alpha"),
    ("diffuse_red", "diffuse_green", "diffuse_blue", "diffuse_alpha"),
    ("r", "g", "b", "a"),
)
_UV = (
    ("s", "t"),
    ("u", "v"),
    ("texture_u", "texture_v"),
    ("texture_s", "texture_t"),
    ("s0", "t0"),
    ("u0", "v0"),
)

_KNOWN = {"x", "y", "z", "nx", "ny", "nz", *chain.from_iterable((*_COLORS, *_UV))}
_NO_COLORS = {"confidence", "quality", "flags"}  # of scanners and MeshLab

Columns = Mapping[str, "np.ndarray | Ragged"]


@dataclass
class _Triangles:
    """corners: [F, 3] vertex numbers. polygon: [F] which face each came from. corner_ids: [F, 3] which
    corner, of all faces' corners, one after another."""

    corners: np.ndarray
    polygon: np.ndarray
    corner_ids: np.ndarray


def read_ply(path: Path, max_triangles: int) -> Mesh:
    """Triangles and materials of a PLY file; raises UnrenderableMesh."""
    notes: list[str] = []
    try:
        file = read_elements(path)
        notes += file.notes
        vertices = file.elements.get("vertex", {})
        missing = [axis for axis in "xyz" if axis not in vertices]
        if missing:
            raise BrokenPly(f"its vertices have no {', '.join(missing)}")
        positions = np.stack([np.asarray(vertices[axis], np.float64) for axis in "xyz"], axis=1)
        faces = _face_element(file.elements)
        polygons = _polygons(faces)
        if int((np.maximum(polygons.sizes, 2) - 2).sum()) > max_triangles:
            raise too_many_triangles(int((np.maximum(polygons.sizes, 2) - 2).sum()), max_triangles)
        triangles = _triangulated(polygons, positions)
        strips = _strips(file.elements.get("tristrips", {}))
        if len(triangles.corners) + len(strips) > max_triangles:
            raise too_many_triangles(len(triangles.corners) + len(strips), max_triangles)
        _check_indices(strips, len(positions))
    except (BrokenPly, OSError) as error:
        raise UnrenderableMesh(f"unreadable PLY: {error}") from error
    images = _images(path, ply_textures(file.comments), vertices, faces, notes)
    if not images and all(_pick(columns, _COLORS) is None for columns in (vertices, faces)):
        notes += _undrawn(vertices)
    surfaces = list(_face_surfaces(positions, vertices, faces, polygons, triangles, images, notes))
    if len(strips):
        of_faces = {"corners": strips, "positions": positions, "vertices": vertices}
        surfaces.append(_surface(**of_faces, face_colors=None, uv=_vertex_uv(vertices, strips),
                                 image=images.get(0), notes=notes))  # fmt: skip
    return Mesh(surfaces, list(dict.fromkeys(notes)))


def _undrawn(vertices: Columns) -> list[str]:
    """A note of the columns in which a mesh without colours may have its brightness or colours after all."""
    names = [name for name in vertices if name not in _KNOWN | _NO_COLORS]
    if not names:
        return []
    listed = ", ".join(shown(name, 40) for name in names[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return [f"has no colours; its vertices' {listed}{more} are not drawn, grey is used"]


def _face_element(elements: Mapping[str, Columns]) -> Columns:
    for name in ("face", "faces", "triangle", "polygon"):
        if name in elements:
            return elements[name]
    return {}


def _polygons(faces: Columns) -> Ragged:
    for name in _POLYGONS:
        if isinstance(faces.get(name), Ragged):
            return faces[name]
    lists = [
        values for values in faces.values() if isinstance(values, Ragged) and values.values.dtype.kind != "f"
    ]
    return lists[0] if lists else Ragged(np.zeros(0, np.int64), np.zeros(0, np.int64))


def _triangulated(polygons: Ragged, positions: np.ndarray) -> _Triangles:
    corners = polygons.values.astype(np.int64)
    _check_indices(corners, len(positions))
    corner_ids = triangulate(corners, polygons.sizes, positions)
    polygon = np.repeat(np.arange(len(polygons.sizes)), polygons.sizes)
    return _Triangles(
        corners[corner_ids], polygon[corner_ids[:, 0]] if len(corner_ids) else corner_ids[:, 0], corner_ids
    )


def _check_indices(corners: np.ndarray, num_vertices: int) -> None:
    if corners.size and (corners.min() < 0 or corners.max() >= num_vertices):
        wrong = corners.min() if corners.min() < 0 else corners.max()
        raise BrokenPly(f"a face names vertex {wrong} of {num_vertices} (0 to {num_vertices - 1})")


def _strips(element: Columns) -> np.ndarray:
    """[F, 3]: each corner from the third on makes a triangle with the two before it; every second is turned
    round; -1 begins another strip."""
    lists = [values for values in element.values() if isinstance(values, Ragged)]
    if not lists:
        return np.zeros((0, 3), np.int64)
    numbers, sizes = lists[0].values.astype(np.int64), lists[0].sizes
    # Each list is a strip of its own, as if a -1 stood before it.
    numbers = np.insert(numbers, np.cumsum(sizes) - sizes, -1)
    positions = np.arange(len(numbers))
    begin = np.maximum.accumulate(np.where(numbers < 0, positions, 0))
    third = positions[(numbers >= 0) & (positions - begin >= 3)]
    odd = (third - begin[third]) % 2 == 0
    return np.stack([numbers[third - 2 + odd], numbers[third - 1 - odd], numbers[third]], axis=1)


def _images(
    path: Path, names: list[str], vertices: Columns, faces: Columns, notes: list[str]
) -> dict[int, Image.Image]:
    """By their number in the file. A mesh that has texture coordinates and nothing to colour it may be meant
    to have the image of its own name."""
    opened = {number: open_texture(name, path.parent, notes) for number, name in enumerate(names)}
    has_uv = "texcoord" in faces or _pick(vertices, _UV) is not None
    if not names and has_uv and _pick(vertices, _COLORS) is None and _pick(faces, _COLORS) is None:
        lone = same_stem(path, IMAGE_SUFFIXES)
        if lone is not None:
            opened[0] = open_texture(lone.name, path.parent, notes)
            notes.append(f"names no texture; {lone.name!r} is used")
        else:
            notes.append("has texture coordinates and names no texture; grey is used")
    return {number: image for number, image in opened.items() if image is not None}


def _face_surfaces(
    positions: np.ndarray, vertices: Columns, faces: Columns, polygons: Ragged, triangles: _Triangles,
    images: dict[int, Image.Image], notes: list[str],
) -> Iterator[Surface]:  # fmt: skip
    """One surface a texture, and one for the faces without."""
    if not len(triangles.corners):
        return
    corner_uv = _wedge_uv(faces, polygons, triangles)
    if corner_uv is None:
        corner_uv = _vertex_uv(vertices, triangles.corners)
    # The texture of each triangle; -1 for none.
    numbers = np.zeros(len(triangles.corners), np.int64)
    if "texnumber" in faces:
        numbers = np.asarray(faces["texnumber"]).astype(np.int64)[triangles.polygon]
    if corner_uv is None:
        numbers[:] = -1
    else:
        numbers[~np.isfinite(corner_uv).all(axis=(1, 2)) & np.isin(numbers, list(images))] = -1
    numbers[~np.isin(numbers, list(images))] = -1
    for number in np.unique(numbers):
        chosen = numbers == number
        face_colors = _corner_colors(faces, polygons, triangles, chosen)
        yield _surface(triangles.corners[chosen], positions, vertices, face_colors,
                       None if corner_uv is None or number < 0 else corner_uv[chosen],
                       images.get(int(number)), notes)  # fmt: skip


def _surface(
    corners: np.ndarray, positions: np.ndarray, vertices: Columns, face_colors: np.ndarray | None,
    uv: np.ndarray | None, image: Image.Image | None, notes: list[str],
) -> Surface:  # fmt: skip
    vertex_colors = _rgba(vertices)
    colors = vertex_colors[corners] if vertex_colors is not None else face_colors
    if image is not None and uv is not None:
        if colors is not None and colors.min() < 0.98:
            # Scanners write both; their product would be dark.
            notes.append("has a texture and colours; the texture alone is drawn")
        colors, material = None, Material((1.0, 1.0, 1.0, 1.0), image, alpha_mode=image_alpha_mode(image))
    elif colors is None:
        uv, material = None, Material(UNCOLORED)
    else:
        uv, material = None, Material((1.0, 1.0, 1.0, 1.0), alpha_mode=colored_alpha_mode(colors, notes))
    normals = _pick(vertices, (("nx", "ny", "nz"),))
    return Surface(
        positions=positions[corners],
        material=material,
        normals=None if normals is None else np.stack(normals, axis=1).astype(np.float64)[corners],
        uv=uv,
        colors=colors,
    )


def _wedge_uv(faces: Columns, polygons: Ragged, triangles: _Triangles) -> np.ndarray | None:
    """[F, 3, 2] from each face's list of u v u v …; NaN for a face without."""
    lists = faces.get("texcoord", faces.get("texcoords"))
    if not isinstance(lists, Ragged) or not len(lists.values):
        return None
    # A face without texture coordinates has an empty list, or one of another length.
    has_uv = lists.sizes == 2 * polygons.sizes
    uv = np.full((len(polygons.values), 2), np.nan)
    uv[np.repeat(has_uv, polygons.sizes)] = lists.values[np.repeat(has_uv, lists.sizes)].reshape(-1, 2)
    return uv[triangles.corner_ids]


def _vertex_uv(vertices: Columns, corners: np.ndarray) -> np.ndarray | None:
    pair = _pick(vertices, _UV)
    return None if pair is None else np.stack(pair, axis=1).astype(np.float64)[corners]


def _corner_colors(
    faces: Columns, polygons: Ragged, triangles: _Triangles, chosen: np.ndarray
) -> np.ndarray | None:
    """[F, 3, 4] linear, of whole faces or, in a list, of their corners (MeshLab's wedge colours)."""
    rgba = _rgba(faces)
    if rgba is not None:
        return np.repeat(rgba[triangles.polygon[chosen]][:, None], 3, axis=1)
    lists = faces.get("color")
    if isinstance(lists, Ragged) and (lists.sizes == 3 * polygons.sizes).all() and len(lists.values):
        rgb = _linear(lists.values.reshape(-1, 3))
        return np.concatenate([rgb, np.ones((len(rgb), 1))], axis=1)[triangles.corner_ids[chosen]]
    return None


def _rgba(columns: Columns) -> np.ndarray | None:
    """[rows, 4] linear light, or None; colours in a PLY are sRGB."""
    for *names, alpha in _COLORS:
        if all(isinstance(columns.get(name), np.ndarray) for name in names):
            rgb = _linear(np.stack([columns[name] for name in names], axis=1))
            opacity = columns.get(alpha)
            opacity = np.ones(len(rgb)) if opacity is None else _unit(np.asarray(opacity))
            return np.concatenate([rgb, np.clip(opacity, 0, 1)[:, None]], axis=1)
    return None


def _linear(values: np.ndarray) -> np.ndarray:
    return srgb_to_linear(_unit(values))


def _unit(values: np.ndarray) -> np.ndarray:
    """0..1: integers range as their type does, floats to 1 or, as some programs write them, to 255."""
    top = float(np.nanmax(values, initial=0.0))
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        full = 255.0 if values.dtype.itemsize == 1 else 65535.0
    elif values.dtype.kind == "f" and top <= 1.5:  # a little more than 1 is a bright 1
        full = 1.0
    else:
        full = 255.0 if top <= 255 else 65535.0
    return values.astype(np.float64) / full


def _pick(columns: Columns, choices: tuple[tuple[str, ...], ...]) -> list[np.ndarray] | None:
    """The first of several sets of columns that is there; of colours the first three names suffice."""
    for names in choices:
        needed = names[:3]
        if all(isinstance(columns.get(name), np.ndarray) for name in needed):
            return [columns[name] for name in needed]
    return None
