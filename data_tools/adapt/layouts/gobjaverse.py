"""G-buffer Objaverse (Qiu et al., RichDreamer, 2023): `00000/00000.png`, `00000/00000.json`, 40 views.

The .json has the camera's centre `origin` and its axes `x` (right), `y` and `z` in a world with +z up, and
`x_fov` in radians. Programs that read the set disagree whether `y` and `z` point down and forward (OpenCV)
or up and backward (OpenGL), so that it is read off the cameras: all look at the object, at the origin.
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
    from_z_up,
    read_json,
    require_files,
)


class GObjaverse(Layout):
    """One folder per view, `00000/00000.json` beside its image, with camera axes and position by name."""

    def is_object(self, folder: Path) -> bool:
        return (folder / "00000" / "00000.json").is_file()

    def read(self, folder: Path) -> PosedFiles:
        files = sorted(folder.glob("[0-9][0-9][0-9][0-9][0-9]/*.json"))
        files = [path for path in files if path.stem == path.parent.name]
        c2w = np.tile(np.eye(4), (len(files), 1, 1))
        angles = []
        for view, path in enumerate(files):
            content = read_json(path)
            try:
                c2w[view, :3] = np.stack([content[key] for key in ("x", "y", "z", "origin")], axis=1)
                angles.append(float(content["x_fov"]))
                other = float(content.get("y_fov", angles[-1]))
            except (KeyError, TypeError) as error:
                raise UnreadableObject(f"{path} lacks {error}") from error
            if abs(other - angles[-1]) > 1e-3:
                raise UnreadableObject(
                    f"{path} has x_fov={angles[-1]:g} and y_fov={other:g}; images are square"
                )
        images = require_files([path.with_suffix(".png") for path in files])
        if self.fov_y_deg is None and max(angles) - min(angles) > 1e-4:
            raise UnreadableObject(
                f"has x_fov from {min(angles)} to {max(angles)}; views need one; give --fov"
            )
        return PosedFiles(images, _to_ours(c2w), self.fov_y_deg or math.degrees(angles[0]))


def _to_ours(c2w: np.ndarray) -> np.ndarray:
    toward = -(c2w[:, :3, 2] * c2w[:, :3, 3]).sum(axis=1)  # [V], positive where z points at the origin
    if (toward > 0).all():
        return from_z_up(c2w)
    if (toward < 0).all():
        return from_blender(c2w)
    view = int(np.flatnonzero(np.sign(toward) != np.sign(toward[0]))[0])
    raise UnreadableObject(f"view {view} looks away from the object where view 0 looks at it, or the reverse")
