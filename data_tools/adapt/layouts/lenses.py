"""One field of view for all of an object's views: what a shard's cameras can say of a lens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_tools.adapt.layouts.base import UnreadableObject, naming
from lgm.cameras.lens import Lens
from lgm.files import read_text

# Of the image's width: half a pixel of 100, which rounding of `cx` may cost.
_MAX_OFF_CENTER = 0.005
_MAX_FOCAL_DIFFERENCE = 1e-3


def common_fov_deg(lenses: Sequence[Lens], given_deg: float | None = None) -> float:
    """The vertical field of view in degrees of pinholes that look through the middle of square images.

    given_deg: a person's, which goes before the lenses' own. Raises UnreadableObject for lenses that are no
    such pinhole, or not one and the same.
    """
    for view, lens in enumerate(lenses):
        if any(lens.distortion):
            names = zip(("k1", "k2", "p1", "p2"), lens.distortion, strict=True)
            listed = ", ".join(f"{name}={value:g}" for name, value in names if value)
            raise UnreadableObject(f"view {view} has {listed}: undistort the images first")
        for name, center, size in (("cx", lens.center_x, lens.width), ("cy", lens.center_y, lens.height)):
            if abs(center - size / 2) > _MAX_OFF_CENTER * size:
                raise UnreadableObject(
                    f"view {view} has {name}={center:g} of {size} pixels: crop the images, so that the "
                    "principal point is their middle"
                )
        if abs(lens.focal_x / lens.focal_y - 1) > _MAX_FOCAL_DIFFERENCE:
            raise UnreadableObject(
                f"view {view} has focal lengths {lens.focal_x:g} and {lens.focal_y:g}: pixels are not square"
            )
    if given_deg is not None:
        return given_deg
    fovs = [math.degrees(2 * math.atan(lens.height / 2 / lens.focal_y)) for lens in lenses]
    if max(fovs) - min(fovs) > 0.01:
        raise UnreadableObject(
            f"has fields of view from {min(fovs):.4g} to {max(fovs):.4g} degrees; views need one; give --fov"
        )
    return fovs[0]


def read_intrinsics(path: Path, width: int, height: int) -> Lens:
    """A text file: SRN's (`f cx cy 0.`, three lines, and last `height width`), or a matrix of 3x3 or 4x4.

    width, height: of the image in pixels; SRN's own size goes before them.
    """
    with naming(path):
        lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
        numbers = np.array([float(word) for line in lines for word in line])
    if numbers.size in (9, 16):
        matrix = numbers.reshape(math.isqrt(numbers.size), -1)
        focal_x, focal_y, center_x, center_y = matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
    elif len(lines) >= 2 and len(lines[0]) in (3, 4) and len(lines[-1]) == 2:
        focal_x, center_x, center_y = numbers[:3]
        focal_y, (height, width) = focal_x, (round(number) for number in numbers[-2:])
    else:
        raise UnreadableObject(f"{path} is neither SRN's intrinsics nor a matrix of 3x3 or 4x4")
    lens = Lens(focal_x, focal_y, center_x, center_y, width, height)
    if not 0.1 * height < focal_y < 100 * height:
        raise UnreadableObject(
            f"{path} has a focal length of {focal_y:g} for {height} pixels; expected pixels"
        )
    return lens
