"""Which axis of the hub's .glb files points up: the scans' own .obj, which has +z up, lies beside them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from data_tools.adapt.meshes.scanned_objects import samples
from data_tools.meshes.load import load_mesh
from data_tools.meshes.surfaces import UnrenderableMesh

_MOST_OBJECTS = 20
# Of the longest side: what rounding of the files may make of an extent.
_TOLERANCE = 0.02
_MAX_TRIANGLES = 5_000_000


def up_axis(tars: list[Path]) -> str:
    """`z` where the .glb files have the axes of the .obj beside them, `y` where they were turned upright
    for glTF.

    Decided by the extents of the first objects whose sides differ. Raises ValueError where none tells.
    """
    votes = {"y": 0, "z": 0}
    seen = 0
    for path in tars:
        for _, files in samples(path, ("glb", "obj")):
            if "glb" in files and "obj" in files and (axis := _axis(files["obj"], files["glb"])):
                votes[axis] += 1
            seen += 1
            if seen >= _MOST_OBJECTS and votes["y"] != votes["z"]:
                return max(votes, key=votes.__getitem__)
        if seen >= _MOST_OBJECTS:
            break
    if votes["y"] == votes["z"]:
        raise ValueError(
            f"which axis points up in the .glb files cannot be told "
            f"({votes['y']} objects say y, {votes['z']} say z): "
            "give --up z where they have the scans' own axes, --up y where they stand upright as glTF has it"
        )
    return max(votes, key=votes.__getitem__)


def _axis(obj: bytes, glb: bytes) -> str | None:
    """By the extents of one object; None where both axes fit, or neither."""
    scan, mesh = _obj_extents(obj), _glb_extents(glb)
    if scan is None or mesh is None:
        return None
    same, turned = (np.abs(scan[order] - mesh).max() < _TOLERANCE for order in ([0, 1, 2], [0, 2, 1]))
    return None if same == turned else ("z" if same else "y")


def _obj_extents(content: bytes) -> np.ndarray | None:
    lines = [line.split()[1:4] for line in content.splitlines() if line.startswith(b"v ")]
    try:
        return _of_longest(np.array(lines, dtype=np.float64))
    except ValueError:
        return None


def _glb_extents(content: bytes) -> np.ndarray | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mesh.glb")
        path.write_bytes(content)
        try:
            mesh = load_mesh(path, "box", np.eye(4), _MAX_TRIANGLES)
        except UnrenderableMesh:
            return None
    return _of_longest(np.concatenate([surface.positions.reshape(-1, 3) for surface in mesh.surfaces]))


def _of_longest(points: np.ndarray) -> np.ndarray | None:
    """Extents [3] of points [N, 3], as fractions of the longest."""
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        return None
    extents = np.ptp(points, axis=0)
    return extents / extents.max() if extents.max() > 0 else None
