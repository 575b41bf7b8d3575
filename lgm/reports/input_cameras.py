"""`objects/<uid>/input_cameras.json`: where the inputs of an object stand about its Gaussians."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from lgm.cameras import Cameras
from lgm.errors import reading

FILE_NAME = "input_cameras.json"
MAX_CAMERAS = 1000


def to_text(cameras: Cameras) -> str:
    """Cameras [V] as JSON: OpenCV axes, world +y up, intrinsics divided by the image's size."""
    flags = cameras.is_orthographic
    content = {
        "convention": "opencv_c2w_y_up",
        "c2w": cameras.c2w.double().tolist(),
        "K_norm": cameras.K_norm.double().tolist(),
        "is_orthographic": [False] * len(cameras.c2w) if flags is None else flags.tolist(),
    }
    return json.dumps(content, allow_nan=False) + "\n"


def read(path: Path) -> Cameras:
    """The inverse of `to_text`; raises ValueError or FileNotFoundError in one line."""
    with reading(path, "evaluate again, or delete it"):
        content = json.loads(path.read_text(encoding="utf-8"))
        c2w, K_norm = (torch.tensor(content[key], dtype=torch.float32) for key in ("c2w", "K_norm"))
        flags = torch.tensor(content["is_orthographic"], dtype=torch.bool)
        if not 1 <= len(c2w) <= MAX_CAMERAS or flags.shape != c2w.shape[:1]:
            raise ValueError(f"it has {len(c2w)} poses and {len(flags)} projections")
        if not (
            c2w.isfinite().all() and K_norm.isfinite().all() and (K_norm.diagonal(dim1=-2, dim2=-1) > 0).all()
        ):
            raise ValueError("its numbers are not those of cameras")
        return Cameras(c2w, K_norm, flags if flags.any() else None)
