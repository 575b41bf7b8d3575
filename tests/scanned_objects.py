"""Tars of Google Scanned Objects in the hub's layout, made of procedural meshes: no test needs the data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_tools.procedural.gltf import save_glb
from lgm.data.sources.procedural import make_object
from tests.datasets import write_shard

# From +y up to the scans' +z up: x stays, y becomes z.
TO_Z_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=np.float32)


def scan(key: str, index: int, folder: Path, upright: bool = False) -> dict[str, bytes]:
    """One object's members: .glb, the scan's .obj (+z up, in metres), .json, and what the reader passes over.

    upright: whether the .glb was turned to +y up, and does not have the scan's axes.
    """
    mesh = make_object(7, index, False)
    # No two sides alike, so that the axes can be told by them.
    positions = mesh.positions * np.array([1.0, 1.6, 0.5], dtype=np.float32)
    scanned = positions @ TO_Z_UP.T
    turn = np.eye(3, dtype=np.float32) if upright else TO_Z_UP
    turned = replace(mesh, positions=positions @ turn.T, normals=mesh.normals @ turn.T)
    save_glb(turned, folder / f"{key}.glb")
    content = (folder / f"{key}.glb").read_bytes()
    vertices = "".join(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in 0.1 * scanned)
    known = {"object_id": key, "name": key.replace("_", " "), "category": "Toys", "license_id": "cc-by-4.0"}
    return {
        f"{key}.glb": content,
        f"{key}.json": json.dumps(known).encode(),
        f"{key}.mtl": b"newmtl m\n",
        f"{key}.obj": f"mtllib model.mtl\n{vertices}f 1 2 3\n".encode(),
        f"{key}.texture.png": b"not read",
        f"{key}.thumbnail_0.jpg": b"not read",
    }


def write_tars(folder: Path, keys: list[str], per_tar: int = 2, upright: bool = False) -> Path:
    """`data/gso-train-00000.tar` and so on below the folder."""
    made = folder / "made"
    made.mkdir(parents=True)
    objects = [scan(key, index, made, upright) for index, key in enumerate(keys)]
    for number, start in enumerate(range(0, len(keys), per_tar)):
        write_shard(folder / "data" / f"gso-train-{number:05d}.tar", objects[start : start + per_tar])
    return folder / "data"
