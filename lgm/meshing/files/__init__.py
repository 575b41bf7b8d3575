"""Mesh files: .glb, .obj with .mtl and .png, .ply with vertex colours. All have +y up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lgm.meshing.files.gltf import save_glb
from lgm.meshing.files.obj import save_obj
from lgm.meshing.files.ply import save_colored_ply
from lgm.meshing.mesh import Mesh

_WRITERS: dict[str, Callable[[Mesh, Path], None]] = {
    ".glb": save_glb,
    ".obj": save_obj,
    ".ply": save_colored_ply,
}


def check_suffix(path: str | Path) -> Path:
    """The path of a mesh file; raises ValueError in one line for a suffix that has no writer."""
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise ValueError(
            f"{path} is not a mesh file that can be written: its suffix is one of {', '.join(_WRITERS)}"
        )
    return path


def save_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write a mesh in the format of the path's suffix; each file is written atomically."""
    path = check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[path.suffix.lower()](mesh, path)


__all__ = ["check_suffix", "save_colored_ply", "save_glb", "save_mesh", "save_obj"]
