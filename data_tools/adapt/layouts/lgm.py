"""The layout of the original LGM program (its data set was never published): `rgb/000.png`, `pose/000.txt`.

A pose is 16 numbers, camera-to-world, row by row. Its loader takes the camera's axes for OpenCV's and the
world for Blender's (+z up), and the field of view is the program's 49.1 degrees, unless `intrinsics.txt`, or
`intrinsics/000.txt` of each view, says another (sets of Scene Representation Networks are laid out alike).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_tools.adapt.layouts.base import (
    Layout,
    PosedFiles,
    UnreadableObject,
    from_z_up,
    naming,
    opened_view,
    require_files,
)
from data_tools.adapt.layouts.lenses import common_fov_deg, read_intrinsics
from lgm.cameras.canonical import FOV_Y_DEG
from lgm.files import read_text


class OriginalLGM(Layout):
    """The layout that the original LGM's data loader reads: `rgb/000.png` and `pose/000.txt`, 16 numbers
    each.
    """

    def is_object(self, folder: Path) -> bool:
        return (folder / "rgb").is_dir() and (folder / "pose").is_dir()

    def read(self, folder: Path) -> PosedFiles:
        files = sorted((folder / "pose").glob("*.txt"))
        poses = []
        for path in files:
            with naming(path):
                numbers = [float(word) for word in read_text(path).split()]
            if len(numbers) != 16:
                raise UnreadableObject(f"{path} has {len(numbers)} numbers, expected 16")
            poses.append(numbers)
        images = require_files([folder / "rgb" / f"{path.stem}.png" for path in files])
        c2w = np.array(poses, dtype=np.float64).reshape(-1, 4, 4)
        return PosedFiles(images, from_z_up(c2w), self._fov_y_deg(folder, images))

    def _fov_y_deg(self, folder: Path, images: tuple[Path, ...]) -> float:
        files = [path for path in (folder / "intrinsics.txt",) if path.is_file()]
        files += [folder / "intrinsics" / f"{path.stem}.txt" for path in images]
        files = [path for path in files if path.is_file()]
        if not files:
            return self.fov_y_deg or FOV_Y_DEG
        with opened_view(images[0]) as image:
            size = image.size
        return common_fov_deg([read_intrinsics(path, *size) for path in files], self.fov_y_deg)
