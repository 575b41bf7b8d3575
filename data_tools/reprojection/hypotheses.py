"""The known ways in which cameras and images come apart. To look for another, add it to HYPOTHESES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_tools.reprojection.outlines import Outlines
from data_tools.reprojection.tangency import Gaps, tangent_gaps, world_rays


def _as_they_are(c2w: np.ndarray) -> np.ndarray:
    return c2w


def _from_opengl(c2w: np.ndarray) -> np.ndarray:
    return c2w * np.array([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Hypothesis:
    """A mistake that would explain why cameras and images disagree.

    fault: what it says about the data, where it is true.
    signs: to turn the images' x and y around.
    poses: [V, 4, 4] -> [V, 4, 4], the poses as they should be, OpenCV axes.
    widening: factor on the field of view in degrees.
    """

    name: str
    fault: str
    signs: tuple[float, float] = (1.0, 1.0)
    poses: Callable[[np.ndarray], np.ndarray] = _as_they_are
    widening: float = 1.0

    def gaps(self, outlines: Outlines, c2w: np.ndarray, fov_y_deg: float, pairs: np.ndarray) -> Gaps:
        """How far the views disagree if this were so; pairs: [P, 2]."""
        half_width = float(np.tan(np.radians(min(fov_y_deg * self.widening, 170.0)) / 2))
        c2w = self.poses(c2w)
        rays = world_rays(outlines.points * self.signs, c2w[:, :3, :3], half_width)
        return tangent_gaps(outlines, rays, c2w[:, :3, 3], half_width, pairs)


def _fov(percent: int) -> Hypothesis:
    given, fitting = ("narrow", "wider") if percent > 0 else ("wide", "narrower")
    fault = f"fov_y_deg is too {given}: one {abs(percent)} % {fitting} fits"
    return Hypothesis(f"fov {percent:+d} %", fault, widening=1 + percent / 100)


# What undoes errors of about 20, 10 and 5 % either way: 1 / 1.2 is 17 % less, 1 / 0.8 is 25 % more.
_FOV_STEPS_PERCENT = (-17, -10, -5, 5, 10, 25)

AS_GIVEN = Hypothesis("as given", "cameras and images agree")

HYPOTHESES: tuple[Hypothesis, ...] = (
    Hypothesis(
        "flipped y",
        "the y axis is flipped: images upside down, or elevations of the wrong sign",
        signs=(1.0, -1.0),
    ),
    Hypothesis(
        "mirrored",
        "the world is mirrored: images with left and right exchanged, or azimuths of the wrong sign",
        signs=(-1.0, 1.0),
    ),
    Hypothesis("rolled", "x and y are flipped: images or cameras turned over", signs=(-1.0, -1.0)),
    Hypothesis("OpenGL axes", "c2w has OpenGL axes (-z forward, +y up), not OpenCV's", poses=_from_opengl),
    Hypothesis("world to camera", "c2w holds world-to-camera matrices", poses=np.linalg.inv),
    *(_fov(percent) for percent in _FOV_STEPS_PERCENT),
)
