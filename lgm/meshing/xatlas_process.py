"""Unwrapping by xatlas in a process of its own, with a time limit: it hangs on some meshes, and a call into a
library cannot be ended from outside."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from lgm.meshing.packages import required

TIME_LIMIT_S = 180.0


def unwrap_by_xatlas(
    vertices: np.ndarray, faces: np.ndarray, texture: int, padding: int, time_limit_s: float = TIME_LIMIT_S
) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates [T, 2] and their indices [F, 3] of a mesh, in one square page.

    Raises TimeoutError or RuntimeError in one line where xatlas does not end in time, or fails.
    """
    required("xatlas", "xatlas")
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        np.savez(given, vertices=vertices, faces=faces, texture=texture, padding=padding)
        # A command, not multiprocessing: a fork would copy CUDA's state, a spawn import the main program.
        command = [sys.executable, "-m", "lgm.meshing.xatlas_process", str(given), str(made)]
        try:
            result = subprocess.run(
                command, timeout=time_limit_s, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"xatlas did not end within {time_limit_s:.0f} s") from error
        if result.returncode or not made.is_file():
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"xatlas ended with exit code {result.returncode}: {reason}")
        with np.load(made) as arrays:
            return arrays["uvs"], arrays["faces"]


def _unwrap(given: Path, made: Path) -> None:
    xatlas = required("xatlas", "xatlas")
    with np.load(given) as arrays:
        vertices, faces = arrays["vertices"], arrays["faces"]
        texture, padding = int(arrays["texture"]), int(arrays["padding"])
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    options = xatlas.PackOptions()
    options.resolution, options.padding = texture, padding
    atlas.generate(pack_options=options)
    _, index, uvs = atlas[0]
    if len(index) != len(faces):
        raise ValueError(f"xatlas returned {len(index)} faces for {len(faces)}")
    np.savez(made, uvs=uvs.astype(np.float32), faces=index.astype(np.int64))


if __name__ == "__main__":
    _unwrap(Path(sys.argv[1]), Path(sys.argv[2]))
