"""Checks of camera poses and fields of view, where they cost nothing.

Every entry point of cameras (shards, own images, adapted sets) asks `pose_fault`, `fov_fault`
and `distance_fault`: a camera beyond these bounds gives NaN in float32 somewhere later, or shows nothing.
Imports no torch at its top: processes that pack and check shards never load it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

MIN_FOV_DEG, MAX_FOV_DEG = 0.1, 170.0
MAX_COORDINATE = 1e9  # of a camera's centre; far below where float32's squares overflow
MAX_DISTANCE = 1e6  # from the object, in the data's own units
MIN_DISTANCE = 1e-4
MAX_DISTANCE_RATIO = 1e3  # the farthest camera of an object to the nearest one
_ROTATION_TOLERANCE = 1e-3  # of R Rᵀ: files have poses in float32, or with few digits
_LAST_ROW_TOLERANCE = 1e-6


def pose_fault(c2w: np.ndarray) -> tuple[int, str] | None:
    """The first of the poses [V, 4, 4], float64, that is no rigid camera-to-world matrix of usable numbers,
    and what is wrong with it; None where all are fine."""
    finite = np.isfinite(c2w).all(axis=(1, 2))
    # Bounded before they are multiplied: squares of 1e200 overflow.
    bounded = finite & (np.abs(np.nan_to_num(c2w[:, :3, 3])) <= MAX_COORDINATE).all(axis=1)
    rotations = np.where((np.abs(c2w[:, :3, :3]) <= 2) & finite[:, None, None], c2w[:, :3, :3], 2.0)
    error = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    orthogonal = error <= _ROTATION_TOLERANCE
    mirrored = np.linalg.det(rotations) < 0
    last_row = np.abs(np.nan_to_num(c2w[:, 3]) - (0, 0, 0, 1)).max(axis=1) <= _LAST_ROW_TOLERANCE
    wrong = ~bounded | ~orthogonal | mirrored | ~last_row
    if not wrong.any():
        return None
    view = int(np.flatnonzero(wrong)[0])
    if not finite[view]:
        return view, "its c2w holds non-finite values"
    if not bounded[view]:
        center = [float(f"{x:.4g}") for x in c2w[view, :3, 3]]
        return view, f"its c2w puts the camera at {center}, beyond {MAX_COORDINATE:g}; scale the world down"
    if not orthogonal[view]:
        return view, f"c2w[:3, :3] is no rotation (R Rᵀ differs from 1 by {error[view]:.3g})"
    if mirrored[view]:
        return (
            view,
            "c2w[:3, :3] is no rotation but mirrors (its determinant is -1); one axis has the wrong sign",
        )
    return view, f"the last row of c2w is {c2w[view, 3].tolist()}, expected [0, 0, 0, 1]"


def distance_fault(c2w: np.ndarray) -> tuple[int, str] | None:
    """The first of the poses [V, 4, 4] whose camera stands too near to the object at the origin, or too far,
    for the network's frame, in which all distances are scaled alike; None where all are fine."""
    distances = np.linalg.norm(c2w[:, :3, 3], axis=1)
    # A median, so that one wrong camera does not move the scale that it is measured by.
    typical = float(np.median(distances))
    least = max(MIN_DISTANCE, typical / MAX_DISTANCE_RATIO)
    most = min(MAX_DISTANCE, typical * MAX_DISTANCE_RATIO)
    wrong = ~((distances >= least) & (distances <= most))
    if not wrong.any():
        return None
    view = int(np.flatnonzero(wrong)[0])
    return view, (
        f"its camera stands {distances[view]:.4g} from the origin, where the object is; expected {least:.4g} "
        f"to {most:.4g}, from the median distance {typical:.4g} of its views"
    )


def fov_fault(fov_deg: float) -> str | None:
    """The fault of a field of view in degrees, or None."""
    if MIN_FOV_DEG <= fov_deg <= MAX_FOV_DEG:
        return None
    return f"{fov_deg:.10g}, which is not between {MIN_FOV_DEG:g} and {MAX_FOV_DEG:g} degrees"


def check_between(
    name: str, values: float | list[float] | Tensor, low: float = -math.inf, high: float = math.inf
) -> None:
    """Raise ValueError, naming the first value that is not finite or not within (low, high).

    Values on a GPU are taken as they are: looking at them would make the program wait for it.
    """
    import torch

    values = torch.as_tensor(values).detach()
    if values.device.type != "cpu":
        return
    wrong = values[~((values > low) & (values < high))]
    if len(wrong):
        bounds = {(-math.inf, math.inf): "be finite", (0, math.inf): "be above 0, and finite"}
        must = bounds.get((low, high), f"lie between {low:g} and {high:g}")
        raise ValueError(f"{name}={float(wrong[0]):g} must {must}")


def check_broadcast(shape: tuple[int, ...], **values: Tensor) -> None:
    """Raise ValueError for a value that is neither one for all cameras of a batch shape nor one for each."""
    import torch

    for name, value in values.items():
        try:
            fits = torch.broadcast_shapes(shape, value.shape) == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"{name} of shape {list(value.shape)} fits no cameras of batch shape {list(shape)}: give one "
                "number, or one for each"
            )
