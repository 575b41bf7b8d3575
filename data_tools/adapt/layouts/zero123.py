"""Zero-1-to-3's renders of Objaverse (Liu et al. 2023): `000.png`, `000.npy`, and so on.

The .npy is [3, 4], world-to-camera, in Blender's axes: the camera looks along -z with +y up, the world has
+z up. Distances vary from view to view. Lens and sensor are the script's, 35 mm and 32 mm.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from data_tools.adapt.layouts.base import (
    Layout,
    PosedFiles,
    UnreadableObject,
    from_blender,
    naming,
    require_files,
)

_FOV_Y_DEG = math.degrees(2 * math.atan(32 / 2 / 35))  # 49.13


class Zero123(Layout):
    """Zero123's renders: `000.png` beside `000.npy`, a world-to-camera matrix [3, 4]."""

    def is_object(self, folder: Path) -> bool:
        return (folder / "000.npy").is_file()

    def read(self, folder: Path) -> PosedFiles:
        files = sorted(folder.glob("[0-9][0-9][0-9].npy"))
        w2c = np.tile(np.eye(4), (len(files), 1, 1))
        for view, path in enumerate(files):
            with naming(path):
                matrix = np.load(path, allow_pickle=False)
            if matrix.shape not in ((3, 4), (4, 4)):
                raise UnreadableObject(f"{path} has shape {matrix.shape}, expected (3, 4)")
            w2c[view, :3] = matrix[:3]
        images = require_files([path.with_suffix(".png") for path in files])
        if self.fov_y_deg is None and (stated := next(folder.glob("intrinsics*"), None)) is not None:
            raise UnreadableObject(f"{stated} is not read by this layout; give --fov")
        return PosedFiles(images, from_blender(np.linalg.inv(w2c)), self.fov_y_deg or _FOV_Y_DEG)
