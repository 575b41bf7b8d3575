"""Small data sets by the shard contract, written with nothing but the standard library and Pillow."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, orbit_poses, spiral_angles


def camera_json(num_views: int = 10) -> dict:
    """Four canonical views, the rest on the spiral."""
    elevation_deg, azimuth_deg = spiral_angles(num_views - 4)
    c2w = orbit_poses(
        torch.cat([torch.zeros(4, dtype=torch.float64), elevation_deg]),
        torch.cat([torch.tensor(CANONICAL_AZIMUTHS_DEG, dtype=torch.float64), azimuth_deg]),
    )
    return {
        "version": 1,
        "convention": "opencv_c2w_y_up",
        "fov_y_deg": 49.1,
        "c2w": c2w.double().reshape(-1, 16).tolist(),
        "canonical_inputs": [0, 1, 2, 3],
    }


def sample_files(uid: str, seed: int = 0, num_views: int = 10, size: int = 32) -> dict[str, bytes]:
    """One object's files: a coloured disc that differs from view to view."""
    rng = np.random.default_rng(seed)
    files = {
        f"{uid}.cameras.json": json.dumps(camera_json(num_views)).encode(),
        f"{uid}.json": json.dumps({"uid": uid, "licence": "CC0-1.0"}).encode(),
    }
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside = x**2 + y**2 < (size * 0.35) ** 2
    for view in range(num_views):
        rgba = np.zeros((size, size, 4), np.uint8)
        rgba[inside, :3] = rng.integers(0, 255, 3)
        rgba[inside, 3] = 255
        buffer = io.BytesIO()
        Image.fromarray(rgba).save(buffer, "PNG")
        files[f"{uid}.view_{view:03d}.png"] = buffer.getvalue()
    return files


def write_shard(path: Path, objects: list[dict[str, bytes]]) -> dict:
    """Write a tar and return its entry of the index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for files in objects:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {"name": path.name, "samples": len(objects), "bytes": len(content), "sha256": digest}


def write_index(folder: Path, shards: list[dict], splits: dict | None = None) -> None:
    index = {"version": 1, "shards": shards, "render": {"resolution": 32, "views": 10}}
    if splits:
        index["splits"] = splits
    (folder / "index.json").write_text(json.dumps(index))


def write_dataset(
    folder: Path, train: tuple[int, ...] = (3, 3), val: tuple[int, ...] = (2,), num_views: int = 10
) -> Path:
    """Shards of so many objects each, with splits by shard."""
    shards, splits = [], {"train": [], "val": []}
    number = 0
    for split, counts in (("train", train), ("val", val)):
        for index, count in enumerate(counts):
            objects = [sample_files(f"object-{number + i:03d}", number + i, num_views) for i in range(count)]
            number += count
            shards.append(write_shard(folder / f"{split}-{index:06d}.tar", objects))
            splits[split].append(shards[-1]["name"])
    write_index(folder, shards, splits)
    return folder
