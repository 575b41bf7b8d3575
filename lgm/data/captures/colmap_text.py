"""A COLMAP model in text: `cameras.txt` and `images.txt`, in the folder or its `sparse`, `sparse/0`, …

Poses are world-to-camera, OpenCV axes; the world's axes are arbitrary. A line of `images.txt` that names
an image is followed by one with its points, which may be empty, or missing where another program wrote the
file. Where a folder `masks` holds `<name>.png`, as COLMAP names them, that is the image's alpha.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lgm.cameras.checks import MAX_COORDINATE
from lgm.cameras.lens import Lens
from lgm.data.captures.photos import EXTENSIONS, Capture, Photo, find_stated, fitted, read_text
from lgm.data.schema.sample import BrokenSample
from lgm.errors import reading, shown

_MAX_SIDE = 1e6  # pixels
# Where COLMAP, 3D Gaussian splatting's converter and nerfstudio's leave a model.
FOLDERS = (".", "sparse", "sparse/0", "colmap/sparse/0", "colmap", "model", "text")
# `input` is where 3D Gaussian splatting's convert.py expects the photos.
_IMAGE_FOLDERS = ("images", ".", "input")
# Where fx, fy, cx, cy, k1, k2, p1, p2 stand among a model's parameters; None is zero.
_MODELS: dict[str, tuple[int | None, ...]] = {
    "SIMPLE_PINHOLE": (0, 0, 1, 2, None, None, None, None),
    "PINHOLE": (0, 1, 2, 3, None, None, None, None),
    "SIMPLE_RADIAL": (0, 0, 1, 2, 3, None, None, None),
    "RADIAL": (0, 0, 1, 2, 3, 4, None, None),
    "OPENCV": (0, 1, 2, 3, 4, 5, 6, 7),
}


def find_model(folder: Path) -> Path | None:
    """Where the text model of this folder lies, if it has one; ValueError where it is binary alone."""
    for name in FOLDERS:
        if (folder / name / "cameras.txt").is_file() and (folder / name / "images.txt").is_file():
            return folder / name
    for name in FOLDERS:
        if (folder / name / "images.bin").is_file():
            where = folder / name
            raise BrokenSample(
                f"{where} is a binary COLMAP model; colmap model_converter --input_path {where} "
                f"--output_path {where} --output_type TXT writes the text beside it"
            )
    return None


def read(folder: Path, uid: str) -> Capture:
    """Raises BrokenSample where a line, a lens or an image does not fit."""
    model = find_model(folder)
    photos = []
    with reading(model / "cameras.txt", kind=BrokenSample):
        lenses = _lenses(model / "cameras.txt")
    with reading(model / "images.txt", kind=BrokenSample):
        images = _images(model / "images.txt")
    for name, camera, c2w, where in images:
        if camera not in lenses:
            raise BrokenSample(f"{where} names camera {camera}, which {model / 'cameras.txt'} lacks")
        # The model may have been made from larger images than those that are here.
        image, lens = fitted(_image_path(folder, name), lenses[camera], f"camera {camera} of cameras.txt")
        mask = find_stated(folder / "masks", f"{name}.png")
        if mask.is_file():
            image = replace(image, mask=mask)
        photos.append(Photo(image, lens, c2w))
    return Capture(uid, tuple(photos), up=None, posed=True)


def _lenses(path: Path) -> dict[str, Lens]:
    lenses = {}
    for number, line in _lines(path):
        where = f"{path} line {number}"
        words = line.split()
        if len(words) < 5:
            raise BrokenSample(
                f"{where} has {len(words)} words, expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS"
            )
        camera, model = words[0], words[1].upper()  # ids need not count from 0, nor be without gaps
        if model not in _MODELS:
            raise BrokenSample(
                f"{where}: the lens model {model} is not read, only {', '.join(_MODELS)}; colmap "
                "image_undistorter makes pinhole images"
            )
        indices = _MODELS[model]
        width, height, *parameters = _numbers(words[2:], where)
        if len(parameters) != 1 + max(index for index in indices if index is not None):
            raise BrokenSample(f"{where}: {len(parameters)} parameters do not fit the lens model {model}")
        values = [0.0 if index is None else parameters[index] for index in indices]
        if not all(1 <= side <= _MAX_SIDE for side in (width, height)):
            raise BrokenSample(f"{where} has an image of {width:g} × {height:g}")
        lenses[camera] = Lens(*values[:4], round(width), round(height), tuple(values[4:]))  # type: ignore[call-arg, arg-type]
    return lenses


def _images(path: Path) -> list[tuple[str, str, np.ndarray, str]]:
    """Name, camera and camera-to-world pose of each image, and where it is written."""
    images: list[tuple[str, str, np.ndarray, str]] = []
    for number, line in _lines(path):
        where = f"{path} line {number}"
        # A file's name may hold blanks.
        words = line.split(maxsplit=9)
        if images and _are_points(line):
            continue
        if len(words) < 10:
            raise BrokenSample(
                f"{where} has {len(words)} words, expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            )
        values = np.array(_numbers(words[1:8], where))
        if not (np.isfinite(values).all() and np.abs(values).max() <= MAX_COORDINATE):
            raise BrokenSample(
                f"{where} has a pose of {shown(words[1:8])}, expected numbers within {MAX_COORDINATE:g}"
            )
        # It is divided by below.
        if np.linalg.norm(values[:4]) < 1e-6:
            raise BrokenSample(f"{where} has a quaternion of zeros")
        images.append((words[9].strip(), words[8], _camera_to_world(values), where))
    if not images:
        raise BrokenSample(f"{path} names no images")
    return images


def _camera_to_world(values: np.ndarray) -> np.ndarray:
    """From quaternion wxyz and translation of the world-to-camera pose."""
    w, x, y, z = values[:4] / np.linalg.norm(values[:4])
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    c2w = np.eye(4)
    # The inverse of a rigid motion: no general inverse, which would round.
    c2w[:3, :3] = rotation.T
    c2w[:3, 3] = -rotation.T @ values[4:]
    return c2w


def _are_points(line: str) -> bool:
    """Whether a line holds the points of the image before it, X Y POINT3D_ID each, by what stands in it: a
    program that leaves empty lines out must not cost every second image."""
    words = line.split()
    if len(words) % 3 or Path(line.strip()).suffix.lower() in EXTENSIONS:
        return False
    try:
        return all(np.isfinite(float(word)) for word in words)
    except ValueError:
        return False


def _image_path(folder: Path, name: str) -> Path:
    for subfolder in _IMAGE_FOLDERS:
        path = find_stated(folder / subfolder, name)
        if path.is_file():
            return path
    raise BrokenSample(
        f"{name}, which the COLMAP model names, is neither in {folder} nor in {folder / 'images'}"
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines without comments and blank ones, with their numbers."""
    return [
        (number, line)
        for number, line in enumerate(read_text(path).splitlines(), 1)
        if not line.startswith("#") and line.strip()
    ]


def _numbers(words: list[str], where: str) -> list[float]:
    with reading(where, kind=BrokenSample):
        return [float(word) for word in words]
