"""Products of points and matrices without BLAS.

BLAS starts a thread for every core in each of a machine's loader processes, and they spin while they wait: on
two cores an object cost a third more processor time. And BLAS rounds as the processor likes, where an object
is to be a function of its seed and index alone.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def transformed(
    points: Float[np.ndarray, "N J"], matrix: Float[np.ndarray, "I J"]
) -> Float[np.ndarray, "N I"]:
    """matrix · point of each point: `points @ matrix.T`."""
    result = points[:, :1] * matrix[:, 0]
    for axis in range(1, points.shape[1]):
        result += points[:, axis : axis + 1] * matrix[:, axis]
    return result


def dot(points: Float[np.ndarray, "N J"], direction: Float[np.ndarray, " J"]) -> Float[np.ndarray, " N"]:
    """The dot product of each point with a direction: `points @ direction`."""
    return transformed(points, direction[None])[:, 0]
