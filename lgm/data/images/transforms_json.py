"""`transforms.json` of NeRF's synthetic scenes, of nerfstudio and of instant-ngp.

`frames` of `file_path` and `transform_matrix`: camera-to-world, camera axes OpenGL's. The lens, of all or
of a frame: `fl_x fl_y cx cy w h` in pixels, or `camera_angle_x` (and `camera_angle_y`) in radians, with
`k1 k2 p1 p2`. Without it `transforms_train.json`, `transforms_val.json` and `transforms_test.json`, as far as
they are there, are read as one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lgm.cameras.conventions import opengl_to_opencv
from lgm.data.images.lens import Lens
from lgm.data.images.photos import EXTENSIONS, Capture, Photo, Picture, fitted, number, one_size, open_picture
from lgm.data.sample import BrokenSample

FILE_NAME = "transforms.json"
_PARTS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
_MORE_DISTORTION = ("k3", "k4")
_OTHER_MODELS = ("OPENCV_FISHEYE", "EQUIRECTANGULAR")


def find_files(folder: Path) -> list[Path]:
    """The file of all cameras, or else those of its parts; empty where there are none. Never both: who
    splits the whole leaves it beside the parts, and each picture would count twice."""
    whole = folder / FILE_NAME
    return [path for path in ([whole] if whole.is_file() else map(folder.joinpath, _PARTS)) if path.is_file()]


def read(folder: Path, uid: str) -> Capture:
    """Raises BrokenSample where a field is missing or does not fit its picture."""
    photos = [photo for path in find_files(folder) for photo in _frames(path, uid)]
    return Capture(uid, tuple(photos), up=None, posed=True)


def _frames(path: Path, uid: str) -> list[Photo]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BrokenSample(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise BrokenSample(f"{path} lacks a list of frames")
    photos, unsized = [], []
    for index, frame in enumerate(content["frames"]):
        where = f"{path} frame {index}"
        if not isinstance(frame, dict):
            raise BrokenSample(f"{where} is {frame!r}, expected file_path and transform_matrix")
        for key in ("file_path", "transform_matrix"):
            if key not in frame:
                raise BrokenSample(f"{where} lacks {key}")
        stated = {**content, **frame}
        picture, lens = _lens(_picture_path(path.parent, str(frame["file_path"])), stated, where)
        photos.append(Photo(picture, lens, _pose(frame["transform_matrix"], where)))
        if "w" not in stated:
            unsized.append(picture)
    if unsized:  # one angle, or focal length, then stands for all
        one_size(unsized, uid, f"state w and h, of each frame, in {path.name}")
    return photos


def _picture_path(folder: Path, file_path: str) -> Path:
    path = folder / file_path
    return path if path.suffix.lower() in EXTENSIONS else path.with_name(path.name + ".png")


def _lens(path: Path, stated: Mapping[str, Any], where: str) -> tuple[Picture, Lens]:
    if stated.get("camera_model") in _OTHER_MODELS or stated.get("is_fisheye"):
        raise BrokenSample(
            f"{where} was taken with a fisheye lens or all around; undistort the pictures first"
        )
    width, height = (number(stated, key, where) for key in ("w", "h"))
    picture = None
    if width is None or height is None:
        picture = open_picture(path)
        width, height = picture.width, picture.height
    if min(width, height) <= 0:
        raise BrokenSample(f"{where} has w={width:g} and h={height:g}, which must be above 0")
    focal_x = number(stated, "fl_x", where)
    angle_x, angle_y = (number(stated, key, where) for key in ("camera_angle_x", "camera_angle_y"))
    if focal_x is None:
        if angle_x is None:
            raise BrokenSample(f"{where} lacks a lens: state fl_x, or camera_angle_x in radians")
        focal_x = _focal(angle_x, width, "camera_angle_x", where)
        focal_y = focal_x if angle_y is None else _focal(angle_y, height, "camera_angle_y", where)
    else:
        focal_y = number(stated, "fl_y", where) or focal_x
    center_x, center_y = number(stated, "cx", where), number(stated, "cy", where)
    k1, k2, p1, p2, *more = (
        number(stated, key, where) or 0.0 for key in ("k1", "k2", "p1", "p2", *_MORE_DISTORTION)
    )
    if any(more):
        raise BrokenSample(
            f"{where} has k3 or k4, distortions that are not read; undistort the pictures first"
        )
    lens = Lens(
        focal_x,
        focal_y,
        width / 2 if center_x is None else center_x,
        height / 2 if center_y is None else center_y,
        round(width),
        round(height),
        (k1, k2, p1, p2),
    )
    return (picture, lens) if picture else fitted(path, lens, where)


def _focal(angle_rad: float, size: float, key: str, where: str) -> float:
    if not 0 < angle_rad < math.pi:
        raise BrokenSample(f"{where} has {key}={angle_rad:g}, which must lie between 0 and pi (radians)")
    return 0.5 * size / math.tan(angle_rad / 2)


def _pose(matrix: Any, where: str) -> np.ndarray:
    try:
        c2w = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BrokenSample(f"{where} has a transform_matrix that is no matrix of numbers") from error
    if c2w.shape == (3, 4):
        c2w = np.concatenate([c2w, [[0.0, 0.0, 0.0, 1.0]]])
    if c2w.shape != (4, 4):
        raise BrokenSample(f"{where} has a transform_matrix of shape {c2w.shape}, expected (4, 4)")
    return opengl_to_opencv(torch.from_numpy(c2w)).numpy()
