"""Photographic lenses: a pinhole with Brown-Conrady distortion, as COLMAP and OpenCV have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from lgm.cameras.checks import fov_fault

_UNDISTORT_STEPS = 20
_MAX_CENTER = 100  # of the principal point, in widths or heights: crops lie outside, none so far
_MAX_DISTORTION = 1e6
_MAX_SLOPE = 1e3  # of a ray that looks all but sideways, where there is no distortion to end it


@dataclass(frozen=True)
class Lens:
    """Intrinsics in pixels of an image of `width` × `height`; the first pixel is centred at (0.5, 0.5).

    distortion: k1, k2, p1, p2 of the Brown-Conrady model, as OpenCV, COLMAP and nerfstudio write it.
    """

    focal_x: float
    focal_y: float
    center_x: float
    center_y: float
    width: int
    height: int
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    @classmethod
    def from_fov(cls, fov_y_deg: float, width: int, height: int) -> Lens:
        """A lens without distortion, of square pixels, its principal point in the middle. fov_y_deg:
        vertical.
        """
        focal = 0.5 * height / np.tan(np.radians(fov_y_deg) / 2)
        return cls(focal, focal, width / 2, height / 2, width, height)

    def resized(self, width: int, height: int) -> Lens:
        """The same lens in front of an image of another resolution."""
        x, y = width / self.width, height / self.height
        return Lens(
            self.focal_x * x,
            self.focal_y * y,
            self.center_x * x,
            self.center_y * y,
            width,
            height,
            self.distortion,
        )

    @property
    def fault(self) -> str | None:
        """The fault of these intrinsics, or None."""
        numbers = (self.focal_x, self.focal_y, self.center_x, self.center_y, *self.distortion)
        if not np.isfinite(numbers).all():
            return f"has intrinsics {numbers} that are no numbers"
        if self.focal_x <= 0 or self.focal_y <= 0:
            return f"has focal lengths {self.focal_x} and {self.focal_y}, which must be above 0"
        for axis, size, focal, center in (
            ("x", self.width, self.focal_x, self.center_x),
            ("y", self.height, self.focal_y, self.center_y),
        ):
            if fault := fov_fault(float(np.degrees(2 * np.arctan(0.5 * size / focal)))):
                return f"has fl_{axis}={focal:g} for {size} pixels, a field of view of {fault}"
            if abs(center) > _MAX_CENTER * size:
                return f"has c{axis}={center:g}, far outside of its image of {size} pixels"
        if max(map(abs, self.distortion)) > _MAX_DISTORTION:
            return f"has distortion {self.distortion}, of which none may be beyond {_MAX_DISTORTION:g}"
        return None

    def project(
        self, directions: Float[np.ndarray, "*batch 3"]
    ) -> tuple[Float[np.ndarray, "*batch 2"], Bool[np.ndarray, "*batch"]]:
        """Pixel coordinates of directions in OpenCV camera axes, and which of them the lens can see at
        all: those in front, as far out as its distortion still grows outwards."""
        depth = directions[..., 2:]
        front = depth[..., 0] > 1e-6
        xy = directions[..., :2] / np.where(depth > 1e-6, depth, 1.0)
        seen = front & ((xy**2).sum(axis=-1) < self._max_slope() ** 2)
        xy = self._distorted(np.where(seen[..., None], xy, 0.0))
        return xy * (self.focal_x, self.focal_y) + (self.center_x, self.center_y), np.asarray(seen)

    def directions(self, pixels: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 3"]:
        """Unit directions, in OpenCV camera axes, of pixel coordinates; the inverse of `project`."""
        # Distortion has no inverse in closed form.
        distorted = (pixels - (self.center_x, self.center_y)) / (self.focal_x, self.focal_y)
        xy = distorted
        if any(self.distortion):
            for _ in range(_UNDISTORT_STEPS):  # the fixed point, as OpenCV finds it
                xy = xy + (distorted - self._distorted(xy))
        rays = np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1)
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)

    def _distorted(self, xy: np.ndarray) -> np.ndarray:
        """Brown-Conrady: radial k1, k2 and tangential p1, p2, of slopes x/z and y/z."""
        k1, k2, p1, p2 = self.distortion
        if not any(self.distortion):
            return xy
        x, y = xy[..., 0], xy[..., 1]
        squared = x * x + y * y
        radial = 1 + k1 * squared + k2 * squared**2
        return np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (squared + 2 * x * x),
                y * radial + 2 * p2 * x * y + p1 * (squared + 2 * y * y),
            ],
            axis=-1,
        )

    def _max_slope(self) -> float:
        """tan of the angle from which on the polynomial would fold the image back on itself."""
        k1, k2 = self.distortion[:2]
        # r (1 + k1 r² + k2 r⁴) grows while 1 + 3 k1 q + 5 k2 q² is positive, with q = r².
        roots = np.roots([5 * k2, 3 * k1, 1.0])
        turning = [root.real for root in roots if abs(root.imag) < 1e-9 and root.real > 0]
        return min([_MAX_SLOPE, *np.sqrt(turning)])
