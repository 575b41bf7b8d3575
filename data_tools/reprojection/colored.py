"""The views of an object whose colours are asked, and the surface that their silhouettes leave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_tools.reprojection.hull_points import SurfacePoints, find_surface
from data_tools.reprojection.pairs import choose_views


@dataclass(frozen=True)
class ColoredViews:
    """numbers: [W] of all V views those that are asked, none where too few are whole.
    images: [W, S, S, 4] float32 in 0..1, colours times alpha; c2w: [W, 4, 4], OpenCV axes. carves: [W],
    whose silhouettes leave the surface.
    """

    numbers: np.ndarray
    images: np.ndarray
    c2w: np.ndarray
    fov_y_deg: float
    carves: np.ndarray

    @classmethod
    def of(
        cls,
        images: np.ndarray,
        is_whole: np.ndarray,
        c2w: np.ndarray,
        fov_y_deg: float,
        is_colored: np.ndarray | None = None,
    ) -> ColoredViews:
        """images: [V, S, S, 4] uint8, colours times alpha; is_whole: [V], as Outlines has it;
        c2w: [V, 4, 4]. is_colored: [V] views that are asked; None for the whole ones."""
        numbers = choose_views(is_whole if is_colored is None else is_colored)
        colors = images[numbers].astype(np.float32) / 255
        return cls(numbers, colors, c2w[numbers], fov_y_deg, is_whole[numbers])

    @cached_property
    def surface(self) -> SurfacePoints:
        """With the cameras as given; carved once for all that ask."""
        return find_surface(self.images[..., 3], self.c2w, self.fov_y_deg, self.carves)
