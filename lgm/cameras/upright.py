"""Orbits around another axis than +y."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def tilt(up: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation that carries +y to the direction `up`."""
    x, y, z = (up.double() / up.double().norm()).tolist()
    if y < -1 + 1e-9:  # upside down: half a turn, about +x
        return torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    factor = 1 / (1 + y)
    return torch.tensor(
        [
            [1 - x * x * factor, x, -x * z * factor],
            [-x, y, -z],
            [-x * z * factor, z, 1 - z * z * factor],
        ]
    )
