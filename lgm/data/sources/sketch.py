"""Views that a loader process leaves to the training device to draw: a mesh and cameras instead of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Sketch:
    """One object's views: a mesh as `LitMeshes.pack` takes it, poses, and how they are drawn.

    size: of the square images; supersampling: samples along a pixel's side.
    """

    mesh: Any
    c2w: Float[np.ndarray, "P 4 4"]
    fov_y_deg: float
    size: int
    supersampling: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of its images [P, size, size, 4], as a decoded array would have it."""
        return len(self.c2w), self.size, self.size, 4
