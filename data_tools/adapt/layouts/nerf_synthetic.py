"""NeRF's synthetic scenes (Mildenhall et al. 2020), and what Blender scripts after them write.

`transforms.json`, or `transforms_train.json` beside `_val` and `_test`, as
`lgm.data.captures.transforms_json`
reads them: lens, and `frames` of `file_path` (`./train/r_0`, `.png` understood) and `transform_matrix`:
camera-to-world, OpenGL axes, world +z up.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_tools.adapt.layouts.base import Layout, PosedFiles, UnreadableObject, from_z_up, require_files
from data_tools.adapt.layouts.lenses import common_fov_deg
from lgm.data.captures.transforms_json import find_files, read
from lgm.data.schema.sample import BrokenSample

_OTHER_LAYOUT = "use --layout transforms, which makes images for one lens and their masks to alphas"


class NerfSynthetic(Layout):
    """`transforms.json`, or NeRF-synthetic's `transforms_train.json` and its siblings."""

    def is_object(self, folder: Path) -> bool:
        return bool(find_files(folder))

    def read(self, folder: Path) -> PosedFiles:
        try:
            photos = read(folder, folder.name).photos
        except BrokenSample as error:
            raise UnreadableObject(str(error)) from error
        images = require_files([photo.image.path for photo in photos])
        if any(photo.image.mask for photo in photos):
            raise UnreadableObject(f"has mask_path, which this layout does not read; {_OTHER_LAYOUT}")
        try:
            fov_y_deg = common_fov_deg([photo.lens for photo in photos], self.fov_y_deg)
        except UnreadableObject as error:
            raise UnreadableObject(f"{error}; or {_OTHER_LAYOUT}") from error
        return PosedFiles(images, from_z_up(np.stack([photo.c2w for photo in photos])), fov_y_deg)
