"""The Cameras object: where images were taken from, and through which lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.cameras.checks import check_between, check_broadcast
from lgm.cameras.trajectories import orbit_poses, rigid_inverse


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of any batch shape.

    c2w: camera-to-world, OpenCV axes, world +y up.
    K_norm: intrinsics divided by the image's size (row 0 by its width, row 1 by its height),
        so that they hold at any resolution; pixel (0, 0) is centred at (0.5, 0.5).
    """

    c2w: Float[Tensor, "*batch 4 4"]
    K_norm: Float[Tensor, "*batch 3 3"]

    def __post_init__(self) -> None:
        if self.c2w.shape[-2:] != (4, 4) or self.K_norm.shape != (*self.c2w.shape[:-2], 3, 3):
            raise ValueError(
                f"cameras need c2w [..., 4, 4] and K_norm [..., 3, 3] of the same batch shape; "
                f"got {tuple(self.c2w.shape)} and {tuple(self.K_norm.shape)}"
            )
        if not (self.c2w.is_floating_point() and self.K_norm.is_floating_point()):
            raise ValueError(
                f"cameras need c2w and K_norm of floats, got {self.c2w.dtype} and {self.K_norm.dtype}; "
                "turn them with .float()"
            )

    @classmethod
    def from_fov(
        cls, c2w: Float[Tensor, "*batch 4 4"], fov_y_deg: float | Tensor, aspect: float | Tensor = 1.0
    ) -> Cameras:
        """Cameras with the principal point in the middle.

        fov_y_deg: vertical field of view in degrees, one number or one a camera.
        aspect: width / height of the image, likewise.

        Raises ValueError in one line for poses of whole numbers, and for a field of view or an aspect that
        no camera has (values on a GPU are taken as they are) or that is not one for each camera.
        """
        if not c2w.is_floating_point():
            raise ValueError(f"c2w needs floats, got {c2w.dtype}; turn it with .float()")
        check_between("fov_y_deg", fov_y_deg, 0.0, 180.0)
        check_between("aspect", aspect, 0.0)
        fov_y_deg = torch.as_tensor(fov_y_deg, dtype=c2w.dtype, device=c2w.device)
        aspect = torch.as_tensor(aspect, dtype=c2w.dtype, device=c2w.device)
        check_broadcast(c2w.shape[:-2], fov_y_deg=fov_y_deg, aspect=aspect)
        focal_y = 0.5 / torch.tan(torch.deg2rad(fov_y_deg) / 2)
        K_norm = torch.zeros(*c2w.shape[:-2], 3, 3, dtype=c2w.dtype, device=c2w.device)
        K_norm[..., 0, 0] = focal_y / aspect
        K_norm[..., 1, 1] = focal_y
        K_norm[..., 0, 2] = 0.5
        K_norm[..., 1, 2] = 0.5
        K_norm[..., 2, 2] = 1.0
        return cls(c2w=c2w, K_norm=K_norm)

    @classmethod
    def orbit(
        cls,
        elevation_deg: Float[Tensor, "*batch"] | Sequence[float],
        azimuth_deg: Float[Tensor, "*batch"] | Sequence[float],
        radius: float | Tensor = RADIUS,
        fov_y_deg: float = FOV_Y_DEG,
        aspect: float = 1.0,
    ) -> Cameras:
        """Cameras on a sphere around the origin, looking at it, one an angle; positive elevation is above."""
        return cls.from_fov(orbit_poses(elevation_deg, azimuth_deg, radius), fov_y_deg, aspect)

    @property
    def shape(self) -> torch.Size:
        """The batch shape, e.g. [B, V]."""
        return self.c2w.shape[:-2]

    @property
    def device(self) -> torch.device:
        return self.c2w.device

    @property
    def w2c(self) -> Float[Tensor, "*batch 4 4"]:
        """World-to-camera: the inverse of a rigid c2w, without a matrix inversion."""
        return rigid_inverse(self.c2w)

    @property
    def centers(self) -> Float[Tensor, "*batch 3"]:
        """Where the cameras stand in the world."""
        return self.c2w[..., :3, 3]

    @property
    def fov_y_deg(self) -> Float[Tensor, "*batch"]:
        return torch.rad2deg(2 * torch.atan(0.5 / self.K_norm[..., 1, 1]))

    @property
    def elevation_deg(self) -> Float[Tensor, "*batch"]:
        """Angle of the camera above the horizon of the world's origin."""
        height = self.centers[..., 1] / self.centers.norm(dim=-1).clamp_min(1e-12)
        return torch.rad2deg(torch.asin(height.clamp(-1, 1)))

    @property
    def azimuth_deg(self) -> Float[Tensor, "*batch"]:
        """Angle around +y in [0, 360): 0 looks from +z, 90 from +x."""
        return torch.rad2deg(torch.atan2(self.centers[..., 0], self.centers[..., 2])) % 360

    def intrinsics(self, height: int, width: int) -> Float[Tensor, "*batch 3 3"]:
        """Intrinsics in pixels of an image of that size."""
        x, y, one = self.K_norm.unbind(-2)  # rows; a factor made on the host would hold a GPU up
        return torch.stack([x * width, y * height, one], dim=-2)

    def __getitem__(self, index: Any) -> Cameras:
        return Cameras(c2w=self.c2w[index], K_norm=self.K_norm[index])

    def to(self, *args: Any, **kwargs: Any) -> Cameras:
        return Cameras(c2w=self.c2w.to(*args, **kwargs), K_norm=self.K_norm.to(*args, **kwargs))

    def pin_memory(self) -> Cameras:
        return Cameras(c2w=self.c2w.pin_memory(), K_norm=self.K_norm.pin_memory())
