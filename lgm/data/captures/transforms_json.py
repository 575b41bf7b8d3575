"""`transforms.json` of NeRF's synthetic scenes, of nerfstudio and of instant-ngp.

`frames` of `file_path` and `transform_matrix`: camera-to-world, camera axes OpenGL's. The lens, of all or
of a frame: `fl_x fl_y cx cy w h` in pixels, or `camera_angle_x` (and `camera_angle_y`) in radians, with
`k1 k2 p1 p2` or nerfstudio's `distortion_params`. A frame's `mask_path` is its alpha. Without it those of
`transforms_train.json`, `transforms_val.json` and `transforms_test.json` that exist are read as one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lgm.cameras.conventions import opengl_to_opencv
from lgm.cameras.lens import Lens
from lgm.data.captures.photos import (
    Capture,
    Image,
    Photo,
    find_stated,
    fitted,
    number,
    one_size,
    open_image,
    read_text,
)
from lgm.data.schema.sample import BrokenSample, other_projection
from lgm.errors import reading, shown

FILE_NAME = "transforms.json"
_MAX_SIDE = 1e6  # pixels
_PARTS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
# Of `camera_model`, in any case: what a pinhole with k1 k2 p1 p2 can stand for. All others are refused.
_PERSPECTIVE = ("", "PERSPECTIVE", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
# What other lenses are stated by; refused unless zero, false or empty.
_OTHER_LENSES = (
    *("k3", "k4", "k5", "k6", "s1", "s2", "s3", "s4", "shift_x", "shift_y", "rolling_shutter"),
    *("is_fisheye", "equirectangular", "latlong", "ftheta", "ftheta_p0", "ftheta_p1", "ftheta_p2"),
)
_DISTORTION = ("k1", "k2", "p1", "p2")
_DISTORTION_PARAMS = ("k1", "k2", "k3", "k4", "p1", "p2")  # nerfstudio's order


def find_files(folder: Path) -> list[Path]:
    """The file of all cameras, or else those of its parts; empty where there are none. Never both: who
    splits the whole leaves it beside the parts, and each image would count twice."""
    whole = folder / FILE_NAME
    return [path for path in ([whole] if whole.is_file() else map(folder.joinpath, _PARTS)) if path.is_file()]


def read(folder: Path, uid: str) -> Capture:
    """Raises BrokenSample where a field is missing or does not fit its image."""
    photos = []
    for path in find_files(folder):
        with reading(path, kind=BrokenSample):
            photos += _frames(path, uid)
    return Capture(uid, tuple(photos), up=None, posed=True)


def _frames(path: Path, uid: str) -> list[Photo]:
    with reading(path, "it is not JSON", BrokenSample):
        content = json.loads(read_text(path))
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise BrokenSample(f"{path} lacks a list of frames")
    photos, unsized = [], []
    for index, frame in enumerate(content["frames"]):
        where = f"{path} frame {index}"
        if not isinstance(frame, dict):
            raise BrokenSample(f"{where} is {shown(repr(frame))}, expected file_path and transform_matrix")
        for key in ("file_path", "transform_matrix"):
            if key not in frame:
                raise BrokenSample(f"{where} lacks {key}")
        # What a frame states holds for it alone; what it leaves out stands at the top.
        stated = {**content, **frame}
        image, lens = _lens(find_stated(path.parent, str(frame["file_path"])), stated, where)
        if frame.get("mask_path"):
            mask = find_stated(path.parent, str(frame["mask_path"]))
            if not mask.is_file():
                raise BrokenSample(f"{where} has mask_path={frame['mask_path']}, which does not exist")
            image = replace(image, mask=mask)
        photos.append(Photo(image, lens, _pose(frame["transform_matrix"], where)))
        if "w" not in stated:
            unsized.append(image)
    if unsized:  # one angle, or focal length, then stands for all
        one_size(unsized, uid, f"state w and h, of each frame, in {path.name}")
    return photos


def _lens(path: Path, stated: Mapping[str, Any], where: str) -> tuple[Image, Lens]:
    _check_model(stated, where)
    width, height = (number(stated, key, where) for key in ("w", "h"))
    image = None
    if width is None or height is None:
        image = open_image(path)
        width, height = image.width, image.height
    # 0.5 because they are rounded to whole pixels below.
    if not all(0.5 < side <= _MAX_SIDE for side in (width, height)):
        raise BrokenSample(
            f"{where} has w={width:g} and h={height:g}, which must be pixels, above 0 and finite"
        )
    focal_x = number(stated, "fl_x", where)
    angle_x, angle_y = (number(stated, key, where) for key in ("camera_angle_x", "camera_angle_y"))
    if focal_x is None:
        if angle_x is None:
            raise BrokenSample(f"{where} lacks a lens: state fl_x, or camera_angle_x in radians")
        focal_x = _focal(angle_x, width, "camera_angle_x", where)
        # Square pixels where one angle is given: instant-ngp writes both, NeRF's scenes the first.
        focal_y = focal_x if angle_y is None else _focal(angle_y, height, "camera_angle_y", where)
    else:
        focal_y = number(stated, "fl_y", where) or focal_x  # 0 and nothing alike: square pixels
    center_x, center_y = number(stated, "cx", where), number(stated, "cy", where)
    lens = Lens(
        focal_x,
        focal_y,
        width / 2 if center_x is None else center_x,
        height / 2 if center_y is None else center_y,
        round(width),
        round(height),
        _distortion(stated, where),
    )
    return (image, lens) if image else fitted(path, lens, where)


def _check_model(stated: Mapping[str, Any], where: str) -> None:
    """Raise BrokenSample for a lens that is not a pinhole with ordinary distortion: read as one it would
    bend every ray, in silence."""
    model = str(stated.get("camera_model") or "")
    if model.upper() not in _PERSPECTIVE:
        raise BrokenSample(
            f"{where} has camera_model={model}, which is not read, only {', '.join(_PERSPECTIVE[2:])}; "
            "undistort the images first"
        )
    if other := other_projection(stated):
        raise BrokenSample(f"{where} has {other}; only perspective cameras are read")
    mode = str(stated.get("lens_mode") or "")
    if mode.lower() not in ("", "perspective", "opencv"):
        raise BrokenSample(f"{where} has lens_mode={mode}, which is not read; undistort the images first")
    for key in _OTHER_LENSES:
        if np.any(stated.get(key)):
            raise BrokenSample(
                f"{where} has {key}={stated[key]}, a lens that is not read; undistort the images first"
            )


def _distortion(stated: Mapping[str, Any], where: str) -> tuple[float, float, float, float]:
    """k1, k2, p1, p2, from their own keys or from nerfstudio's `distortion_params`."""
    values = stated.get("distortion_params")
    if values is not None:
        if not isinstance(values, list) or (len(values) != len(_DISTORTION_PARAMS) and any(values)):
            raise BrokenSample(
                f"{where} has distortion_params={values}, expected the six numbers "
                f"{', '.join(_DISTORTION_PARAMS)}; undistort the images first"
            )
        named = dict(zip(_DISTORTION_PARAMS, values, strict=False))
        _check_model({key: named.get(key) for key in ("k3", "k4")}, where)
        stated = named
    k1, k2, p1, p2 = (number(stated, key, where) or 0.0 for key in _DISTORTION)
    return k1, k2, p1, p2


def _focal(angle_rad: float, size: float, key: str, where: str) -> float:
    if not 0 < angle_rad < math.pi:
        raise BrokenSample(f"{where} has {key}={angle_rad:g}, which must lie between 0 and pi (radians)")
    return 0.5 * size / math.tan(angle_rad / 2)


def _pose(matrix: Any, where: str) -> np.ndarray:
    with reading(f"{where}: its transform_matrix", "it is no matrix of numbers", BrokenSample):
        c2w = np.asarray(matrix, dtype=np.float64)
    # Some programs leave out the last row, which is always the same.
    if c2w.shape == (3, 4):
        c2w = np.concatenate([c2w, [[0.0, 0.0, 0.0, 1.0]]])
    if c2w.shape != (4, 4):
        raise BrokenSample(f"{where} has a transform_matrix of shape {c2w.shape}, expected (4, 4)")
    # NeRF's camera looks along -z with y up; ours along +z with y down.
    return opengl_to_opencv(torch.from_numpy(c2w)).numpy()
