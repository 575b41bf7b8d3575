"""Camera and world axes of other programs (OpenGL, Blender, COLMAP), converted once, here.

Inside the project a camera is camera-to-world in OpenCV axes: +x right, +y down, +z forward;
the world has +y up. Other programs differ in two ways, and each has one function:

* camera axes: OpenGL and Blender look along -z with +y up;
* world axes: Blender and most scans have +z up.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def _diagonal(like: Tensor) -> Tensor:
    """diag(1, -1, -1, 1): y and z of the camera change their signs, a half turn about x."""
    # Without waiting for a GPU, as a tensor that is made there from numbers would.
    return torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=like.dtype).to(like.device, non_blocking=True)


def opengl_to_opencv(c2w: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn the camera's own axes from OpenGL's to OpenCV's; the world stays."""
    return c2w * _diagonal(c2w)


def opencv_to_opengl(c2w: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn the camera's own axes from OpenCV's to OpenGL's; the world stays. Its own inverse."""
    return c2w * _diagonal(c2w)


def z_up_to_y_up(c2w: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn the world from +z up (Blender) to +y up; the camera's own axes stay.

    A point (x, y, z) of the Blender world lies at (x, z, -y) of ours.
    """
    turn = c2w.new_tensor([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    return turn @ c2w


def y_up_to_z_up(c2w: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn the world from +y up to +z up (Blender); the inverse of `z_up_to_y_up`. (x, y, z) goes to (x, -z,
    y).
    """
    turn = c2w.new_tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    return turn @ c2w


# Angles about +x that carry our world into others, by the axis that is up there.
_UP_TURNS_DEG = {"y": 0.0, "z": 90.0, "-y": 180.0}
UP_AXES = tuple(_UP_TURNS_DEG)


def turn_from_y_up(up: str) -> Float[Tensor, " 4"]:
    """The rotation, a unit quaternion wxyz, from our world into one in which another axis is up.

    up: "y", ours; "z", as in Blender: (x, y, z) goes to (x, -z, y); "-y", as in COLMAP and in the
        viewers that follow it: to (x, -y, -z). The x axis stays, and so does the hand.
    """
    if up not in _UP_TURNS_DEG:
        raise ValueError(f"up={up!r} is not one of {', '.join(UP_AXES)}")
    half = math.radians(_UP_TURNS_DEG[up]) / 2
    return torch.tensor([math.cos(half), math.sin(half), 0.0, 0.0])
