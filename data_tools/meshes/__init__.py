"""Mesh files, read into triangles and materials that an engine can draw."""

from data_tools.meshes.load import load_mesh
from data_tools.meshes.surfaces import Material, Mesh, Surface, UnrenderableMesh

__all__ = ["Material", "Mesh", "Surface", "UnrenderableMesh", "load_mesh"]
