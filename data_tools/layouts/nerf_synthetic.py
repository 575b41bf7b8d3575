"""NeRF's synthetic scenes (Mildenhall et al. 2020), and what Blender scripts after them write.

`transforms.json`, or `transforms_train.json` beside `_val` and `_test`: `camera_angle_x` in radians, and
`frames` of `file_path` (`./train/r_0`, `.png` understood) and `transform_matrix`: camera-to-world, OpenGL
axes, world +z up.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from data_tools.layouts.base import (
    Layout,
    PosedPictures,
    UnreadableObject,
    from_blender,
    read_json,
    require_files,
)


class NerfSynthetic(Layout):
    def is_object(self, folder: Path) -> bool:
        return any(folder.glob("transforms*.json"))

    def read(self, folder: Path) -> PosedPictures:
        pictures: dict[Path, list] = {}
        angles = set()
        for path in sorted(folder.glob("transforms*.json")):
            content = read_json(path)
            try:
                angles.add(float(content["camera_angle_x"]))
                for frame in content["frames"]:
                    pictures[_picture_path(folder, frame["file_path"])] = frame["transform_matrix"]
            except (KeyError, TypeError) as error:
                raise UnreadableObject(f"{path} lacks {error}") from error
        if self.fov_y_deg is None and len(angles) != 1:
            raise UnreadableObject(f"has camera_angle_x of {sorted(angles)}; views need one; give --fov")
        # Pictures are square (adapt sees to it), so that x's field of view is y's.
        fov_y_deg = self.fov_y_deg or math.degrees(next(iter(angles)))
        c2w = np.array(list(pictures.values()), dtype=np.float64).reshape(-1, 4, 4)
        return PosedPictures(require_files(list(pictures)), from_blender(c2w), fov_y_deg)


def _picture_path(folder: Path, file_path: str) -> Path:
    path = folder / file_path
    return path if path.suffix in (".png", ".webp") else path.with_name(path.name + ".png")
