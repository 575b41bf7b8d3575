"""Reader of Wavefront OBJ meshes.

Not trimesh's, which drops the texture coordinates of a whole material when one face of it has none, and reads
relative indices from the wrong end.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from data_tools.meshes.beside import IMAGE_SUFFIXES, find_beside, open_texture, same_stem
from data_tools.meshes.mtl import MtlMaterial, read_materials
from data_tools.meshes.named_files import library_names
from data_tools.meshes.obj_lines import NONE, ObjFile, read_lines
from data_tools.meshes.polygons import triangulate
from data_tools.meshes.surfaces import (
    UNCOLORED,
    Material,
    Mesh,
    Surface,
    UnrenderableMesh,
    colored_alpha_mode,
    image_alpha_mode,
)
from data_tools.shared.colors import srgb_to_linear

_WHITE = (1.0, 1.0, 1.0, 1.0)


def read_obj(path: Path, max_triangles: int) -> Mesh:
    """Triangles and materials of an OBJ file; raises UnrenderableMesh."""
    notes: list[str] = []
    try:
        file = read_lines(path, max_triangles)
        if not len(file.vertices):
            raise UnrenderableMesh("no vertices")
        num_missing = int(file.corners[:, 0].max(initial=-1)) - len(file.vertices) + 1
        if num_missing > 0:
            raise ValueError(f"a face names vertex {file.corners[:, 0].max() + 1} of {len(file.vertices)}")
        triangles, polygon = _triangles(file)
    except (ValueError, OSError) as error:
        raise UnrenderableMesh(f"unreadable OBJ: {error}") from error
    if file.has_free_forms:
        notes.append("has curves or surfaces that are no polygons; they are not drawn")
    colors = _vertex_colors(file.colors if file.colors is not None else _painted_rows(file))
    materials = _chosen_materials(path, file, colors is not None, notes)
    group = file.group[polygon]
    surfaces = []
    for number, name in enumerate(file.groups):
        chosen = triangles if len(file.groups) == 1 else triangles[group == number]
        surfaces += _surfaces(file, chosen, materials.get(name), colors, notes)
    return Mesh(surfaces, list(dict.fromkeys(notes)))


def find_libraries(lines: list[str], mesh: Path, notes: list[str]) -> list[Path]:
    """The material files of an OBJ: those it names, else the one of its own name; a missing one is noted."""
    files: list[Path] = []
    for name in dict.fromkeys(name for line in lines for name in library_names(line, mesh.parent)):
        path = find_beside(name, mesh.parent)
        if path is None:
            notes.append(f"material file {name!r} not found; grey is used")
        else:
            files.append(path)
    if not files and (lone := same_stem(mesh, (".mtl",))) is not None:
        notes.append(f"material file {lone.name!r} is used, which bears the mesh's name")
        files.append(lone)
    return files


def _triangles(file: ObjFile) -> tuple[np.ndarray, np.ndarray]:
    """Corners [F, 3 corners, 3 indices: vertex, texture, normal], and the face of each triangle [F]."""
    corner_ids = triangulate(file.corners[:, 0], file.sizes, file.vertices)
    ends = np.cumsum(file.sizes)
    # The face whose corners hold the triangle's first one.
    polygon = np.searchsorted(ends, corner_ids[:, 0], side="right")
    return file.corners[corner_ids], polygon


def _painted_rows(file: ObjFile) -> np.ndarray | None:
    """ZBrush's colours as rows [V, 4] of `r g b a`."""
    if file.painted is None:
        return None
    rows = np.full((len(file.vertices), 4), np.nan)
    painted = file.painted[: len(rows), 1:] / 255.0
    rows[: len(painted), :3] = painted
    return rows


def _vertex_colors(rows: np.ndarray | None) -> np.ndarray | None:
    """[V, 4] linear light from `x y z r g b a`; NaN where a vertex has none."""
    if rows is None:
        return None
    top = np.nanmax(rows[:, :3])
    rgb = rows[:, :3] / (255.0 if top > 1.5 else 1.0)  # a little more than 1 is a bright 1
    alpha = np.where(np.isfinite(rows[:, 3:]), rows[:, 3:], 1.0 if top <= 1.5 else 255.0)
    alpha = np.clip(alpha / (255.0 if alpha.max() > 1.5 else 1.0), 0.0, 1.0)
    linear = np.where(np.isfinite(rgb), srgb_to_linear(np.nan_to_num(rgb)), np.nan)
    return np.concatenate([linear, alpha], axis=1)


def _chosen_materials(
    path: Path, file: ObjFile, has_colors: bool, notes: list[str]
) -> dict[str, MtlMaterial]:
    """By the names that faces use; a name without one has its note."""
    library: dict[str, MtlMaterial] = {}
    library_notes: list[str] = []
    for material_file in find_libraries(file.libraries, path, library_notes):
        library |= read_materials(material_file, library_notes)
    notes += library_notes
    # Some exporters write a material's name in another case in the .obj than in the .mtl.
    folded = {name.casefold(): material for name, material in library.items()}
    chosen = {}
    for name in file.groups:
        material = library.get(name, folded.get(name.casefold()))
        if material is None and name == "" and len(file.groups) == len(library) == 1:
            (only, material), *_ = library.items()
            notes.append(f"its faces name no material; {only!r} is used, the only one")
        if material is not None:
            chosen[name] = material
        elif name:
            notes.append(f"material {name!r} not found; grey is used")
    is_untextured = not any(m.material.base_image for m in chosen.values())
    if len(file.groups) == 1 and is_untextured and len(file.texture) and not has_colors:
        chosen |= _lone_image(path, file.groups[0], chosen.get(file.groups[0]), notes)
    return chosen


def _lone_image(
    path: Path, group: str, material: MtlMaterial | None, notes: list[str]
) -> dict[str, MtlMaterial]:
    """Of a mesh of one material that has texture coordinates and no texture: the image of its own name."""
    texture = same_stem(path, IMAGE_SUFFIXES)
    image = None if texture is None else open_texture(texture.name, path.parent, notes)
    if image is None:
        return {}
    notes.append(f"names no texture that is there; {texture.name!r} is used")
    plain = Material(_WHITE) if material is None else material.material
    textured = replace(plain, base_color=(1.0, 1.0, 1.0, plain.base_color[3]), base_image=image)
    if plain.alpha_mode == "opaque":
        textured = replace(textured, alpha_mode=image_alpha_mode(image))
    return {group: MtlMaterial(textured)}


def _surfaces(
    file: ObjFile,
    triangles: np.ndarray,
    chosen: MtlMaterial | None,
    vertex_colors: np.ndarray | None,
    notes: list[str],
) -> list[Surface]:
    """One surface for the faces with texture coordinates and one for those without, and so with normals."""
    material = Material(UNCOLORED) if chosen is None else chosen.material
    has_uv = _present(triangles[..., 1], len(file.texture))
    has_normals = _present(triangles[..., 2], len(file.normals))
    surfaces = []
    # Up to four surfaces a material: a surface has texture coordinates and normals for all corners or for
    # none.
    for want_uv in (True, False):
        for want_normals in (True, False):
            some = triangles[(has_uv == want_uv) & (has_normals == want_normals)]
            if len(some) == 0:
                continue
            uv = file.texture[some[..., 1]] if want_uv else None
            placed = chosen is not None and want_uv
            differs = placed and chosen.emission.placement != chosen.base.placement
            colors, baked = _corner_colors(vertex_colors, some[..., 0], chosen, want_uv, notes)
            surfaces.append(
                Surface(
                    positions=file.vertices[some[..., 0]],
                    material=material if baked is None else baked,
                    normals=file.normals[some[..., 2]] if want_normals else None,
                    uv=chosen.base.placed(uv) if placed else uv,
                    emission_uv=chosen.emission.placed(uv) if differs else None,
                    colors=colors,
                )
            )
    return surfaces


def _corner_colors(
    vertex_colors: np.ndarray | None,
    corners: np.ndarray,
    chosen: MtlMaterial | None,
    has_uv: bool,
    notes: list[str],
) -> tuple[np.ndarray | None, Material | None]:
    """Colours [F, 3, 4] and the material to draw them with, where it is another than the file's."""
    if vertex_colors is None:
        return None, None
    colors = vertex_colors[corners]
    has_color = np.isfinite(colors[..., 0])
    if not has_color.any():
        return None, None
    # A texture goes before colours, as viewers of scans show them.
    if chosen is not None and chosen.material.base_image is not None and has_uv:
        if colors[has_color].min() < 0.98:
            # Scanners write both; their product would be dark.
            notes.append("has a texture and colours; the texture alone is drawn")
        return None, None
    # Without a material they are the colours; with one they multiply its own.
    colors[~has_color] = UNCOLORED if chosen is None else _WHITE
    material = Material(_WHITE) if chosen is None else chosen.material
    if material.alpha_mode == "opaque":
        material = replace(material, alpha_mode=colored_alpha_mode(colors, notes))
    return colors, material


def _present(indices: np.ndarray, count: int) -> np.ndarray:
    """Which triangles [F] name an existing element at all three corners."""
    return ((indices != NONE) & (indices < count)).all(axis=1)
