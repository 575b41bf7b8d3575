"""GLB, glTF, PLY and STL, through trimesh: every node with its transform, colours and material."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from data_tools.colors import srgb_to_linear
from data_tools.meshes.gltf_header import gltf_notes, packed_geometry, read_header
from data_tools.meshes.surfaces import (
    Material,
    Mesh,
    Surface,
    UnrenderableMesh,
    image_alpha_mode,
)
from lgm.errors import first_line


def read_scene(path: Path, max_triangles: int) -> Mesh:
    """Triangles and materials of all nodes; raises UnrenderableMesh."""
    is_gltf = path.suffix.lower() in (".glb", ".gltf")
    header, binary = read_header(path) if is_gltf else ({}, b"")
    if fault := packed_geometry(header):
        raise UnrenderableMesh(fault)
    try:
        # process=False: merging vertices would move texture coordinates.
        scene = trimesh.load_scene(path, process=False)
    except Exception as error:  # noqa: BLE001 - a reader of foreign files may raise anything
        raise UnrenderableMesh(f"unreadable {path.suffix[1:].upper()}: {first_line(error)}") from error
    nodes = [(node, *scene.graph[node]) for node in scene.graph.nodes_geometry]
    nodes = [
        (transform, scene.geometry[name])
        for _, transform, name in nodes
        if isinstance(scene.geometry[name], trimesh.Trimesh) and len(scene.geometry[name].faces)
    ]
    # A scene may place one geometry a million times: count before copying.
    num_triangles = sum(len(geometry.faces) for _, geometry in nodes)
    if num_triangles > max_triangles:
        raise UnrenderableMesh(f"{num_triangles} triangles, more than --max-triangles {max_triangles}")
    notes = gltf_notes(header, binary, path.parent)
    return Mesh([_surface(geometry, transform, is_gltf) for transform, geometry in nodes], notes)


def _surface(geometry: trimesh.Trimesh, transform: np.ndarray, is_gltf: bool) -> Surface:
    faces = np.asarray(geometry.faces)
    vertices = np.asarray(geometry.vertices, dtype=np.float64)
    positions = vertices @ transform[:3, :3].T + transform[:3, 3]
    material, uv = _material_and_uv(geometry, is_gltf)
    colors = _colors(geometry, is_gltf)
    if colors is not None:
        if colors[..., 3].min() < 0.98 and material.alpha_mode == "opaque" and not is_gltf:
            material = Material(material.base_color, alpha_mode="blend")
        if material.base_image is None and not is_gltf:
            material = Material((1.0, 1.0, 1.0, 1.0), alpha_mode=material.alpha_mode)
    return Surface(
        positions=positions[faces],
        material=material,
        normals=_normals(geometry, transform, faces),
        uv=None if uv is None else uv[faces],
        colors=colors,
    )


def _normals(geometry: trimesh.Trimesh, transform: np.ndarray, faces: np.ndarray) -> np.ndarray | None:
    """The file's own normals; trimesh would make up others when asked for `vertex_normals`."""
    stored = geometry._cache.cache.get("vertex_normals")
    if stored is None or len(stored) != len(geometry.vertices):
        return None
    linear = transform[:3, :3]
    if abs(np.linalg.det(linear)) < 1e-12:
        return None
    return (np.asarray(stored, dtype=np.float64) @ np.linalg.inv(linear))[faces]


def _colors(geometry: trimesh.Trimesh, is_gltf: bool) -> np.ndarray | None:
    """Corner colours [F, 3, 4] in linear light; glTF's are linear already, others are sRGB."""
    visual = geometry.visual
    if visual.kind == "vertex":
        rgba = np.asarray(visual.vertex_colors)[geometry.faces]
    elif visual.kind == "face":
        rgba = np.repeat(np.asarray(visual.face_colors)[:, None], 3, axis=1)
    else:
        attributes = getattr(visual, "vertex_attributes", {})
        if "color" not in attributes:
            return None
        rgba = trimesh.visual.color.to_rgba(np.asarray(attributes["color"]))[geometry.faces]
    rgba = rgba.astype(np.float64) / 255.0
    if not is_gltf:
        rgba[..., :3] = srgb_to_linear(rgba[..., :3])
    return rgba


def _material_and_uv(geometry: trimesh.Trimesh, is_gltf: bool) -> tuple[Material, np.ndarray | None]:
    visual = geometry.visual
    source = getattr(visual, "material", None)
    uv = getattr(visual, "uv", None)
    if uv is not None and (len(uv) != len(geometry.vertices) or not np.isfinite(uv).all()):
        uv = None
    if isinstance(source, PBRMaterial):
        return _pbr_material(source), uv
    if isinstance(source, SimpleMaterial):
        return _simple_material(source), uv
    # glTF's default is white, whatever stands in the vertices multiplies it.
    return (Material((1.0, 1.0, 1.0, 1.0)) if is_gltf else Material()), uv


def _pbr_material(source: PBRMaterial) -> Material:
    factor = source.baseColorFactor
    base = (1.0, 1.0, 1.0, 1.0) if factor is None else tuple(np.asarray(factor, float) / 255.0)
    image = _image(source.baseColorTexture)
    emission = (0.0, 0.0, 0.0) if source.emissiveFactor is None else tuple(source.emissiveFactor)
    return Material(
        base_color=base,
        base_image=image,
        emission=tuple(float(x) for x in emission),
        emission_image=_image(source.emissiveTexture),
        alpha_mode=_gltf_alpha_mode(source.alphaMode, base[3], image),
        alpha_cutoff=0.5 if source.alphaCutoff is None else float(source.alphaCutoff),
    )


def _gltf_alpha_mode(declared: str | None, opacity: float, image: Image.Image | None) -> str:
    """The file's word, except that BLEND is often set where nothing is translucent."""
    if declared == "MASK":
        return "mask"
    if declared != "BLEND":
        return "opaque"
    if opacity < 0.999:
        return "blend"
    return "blend" if image is None else image_alpha_mode(image)


def _simple_material(source: SimpleMaterial) -> Material:
    image = _image(source.image)
    if image is not None:
        return Material((1.0, 1.0, 1.0, 1.0), image, alpha_mode=image_alpha_mode(image))
    rgba = np.asarray(source.diffuse, dtype=np.float64) / 255.0
    opacity = float(rgba[3])
    alpha_mode = "blend" if opacity < 0.999 else "opaque"
    return Material((*srgb_to_linear(rgba[:3]), opacity), alpha_mode=alpha_mode)


def _image(image: Image.Image | None) -> Image.Image | None:
    if image is None:
        return None
    try:
        image.load()
    except Exception as error:  # noqa: BLE001 - Pillow raises what it likes, SyntaxError for one
        raise UnrenderableMesh(f"a texture is unreadable: {error}") from error
    return image
