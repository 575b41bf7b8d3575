"""The Cameras object: pinhole and orthographic cameras, camera-to-world in OpenCV axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.cameras.checks import check_between, check_broadcast
from lgm.cameras.trajectories import canonicalise, orbit_poses, rigid_inverse, sphere_angles


@dataclass(frozen=True)
class Cameras:
    """Perspective (pinhole) and orthographic cameras of any batch shape.

    c2w: camera-to-world, OpenCV axes, world +y up.
    K_norm: intrinsics divided by the image's size (row 0 by its width, row 1 by its height),
        so that they hold at any resolution; pixel (0, 0) is centred at (0.5, 0.5). They take (x/z, y/z, 1)
        to the image, z being along the camera's axis; of an orthographic camera (x, y, 1): its focal lengths
        are 1 over the width and height of what it sees, in the world's unit.
    is_orthographic: of each camera; None where all are perspective, which is known without asking a device.
    """

    c2w: Float[Tensor, "*batch 4 4"]
    K_norm: Float[Tensor, "*batch 3 3"]
    is_orthographic: Bool[Tensor, "*batch"] | None = None

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
        flags = self.is_orthographic
        if flags is not None and (flags.shape != self.shape or flags.dtype != torch.bool):
            raise ValueError(
                f"is_orthographic needs booleans of shape {list(self.shape)}, one for each camera; got "
                f"{flags.dtype} of shape {list(flags.shape)}"
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
        # In units of the image's height: tan(fov / 2) = 0.5 / f.
        focal_y = 0.5 / torch.tan(torch.deg2rad(fov_y_deg) / 2)
        return cls(c2w=c2w, K_norm=_centred(c2w, focal_y, aspect))

    @classmethod
    def orthographic(
        cls, c2w: Float[Tensor, "*batch 4 4"], height: float | Tensor, aspect: float | Tensor = 1.0
    ) -> Cameras:
        """Cameras whose rays are parallel, with their axis in the middle of the image.

        height: of what the image shows, in the world's unit, one number or one a camera; aspect: as in
            `from_fov`.

        Raises ValueError in one line as `from_fov` does.
        """
        if not c2w.is_floating_point():
            raise ValueError(f"c2w needs floats, got {c2w.dtype}; turn it with .float()")
        check_between("height", height, 0.0)
        check_between("aspect", aspect, 0.0)
        height = torch.as_tensor(height, dtype=c2w.dtype, device=c2w.device)
        aspect = torch.as_tensor(aspect, dtype=c2w.dtype, device=c2w.device)
        check_broadcast(c2w.shape[:-2], height=height, aspect=aspect)
        flags = torch.ones(c2w.shape[:-2], dtype=torch.bool, device=c2w.device)
        return cls(c2w=c2w, K_norm=_centred(c2w, 1 / height, aspect), is_orthographic=flags)

    @classmethod
    def concatenate(cls, parts: Sequence[Cameras], dim: int) -> Cameras:
        """All cameras of several, along an axis of the batch, in the precision of the first."""
        dtype = parts[0].c2w.dtype
        flags = None
        if any(part.is_orthographic is not None for part in parts):
            flags = torch.cat([part.flags for part in parts], dim=dim)
        return cls(
            torch.cat([part.c2w.to(dtype) for part in parts], dim=dim),
            torch.cat([part.K_norm.to(dtype) for part in parts], dim=dim),
            flags,
        )

    @classmethod
    def orbit(
        cls,
        elevation_deg: Float[Tensor, "*batch"] | Sequence[float],
        azimuth_deg: Float[Tensor, "*batch"] | Sequence[float],
        radius: float | Tensor = RADIUS,
        fov_y_deg: float = FOV_Y_DEG,
        aspect: float = 1.0,
    ) -> Cameras:
        """Cameras on a sphere around the origin, looking at it, one per angle; positive elevation is above.

        elevation_deg, azimuth_deg: see `orbit_poses`. radius: in world units. fov_y_deg, aspect: see
            `from_fov`.
        """
        return cls.from_fov(orbit_poses(elevation_deg, azimuth_deg, radius), fov_y_deg, aspect)

    @property
    def shape(self) -> torch.Size:
        """The batch shape, e.g. [B, V]."""
        return self.c2w.shape[:-2]

    @property
    def device(self) -> torch.device:
        """The device of the poses, and so of all tensors."""
        return self.c2w.device

    @property
    def w2c(self) -> Float[Tensor, "*batch 4 4"]:
        """World-to-camera: the inverse of a rigid c2w, without a matrix inversion."""
        return rigid_inverse(self.c2w)

    @property
    def centers(self) -> Float[Tensor, "*batch 3"]:
        """Positions of the cameras in the world, the last column of c2w."""
        return self.c2w[..., :3, 3]

    @property
    def flags(self) -> Bool[Tensor, "*batch"]:
        """`is_orthographic`, written out where it is None."""
        if self.is_orthographic is not None:
            return self.is_orthographic
        return torch.zeros(self.shape, dtype=torch.bool, device=self.device)

    @property
    def fov_y_deg(self) -> Float[Tensor, "*batch"]:
        """Vertical field of view; 0 of orthographic cameras, whose rays are parallel."""
        fov_y_deg = torch.rad2deg(2 * torch.atan(0.5 / self.K_norm[..., 1, 1]))
        if self.is_orthographic is None:
            return fov_y_deg
        return torch.where(self.is_orthographic, 0.0, fov_y_deg)

    @property
    def viewing_fov_y_deg(self) -> Float[Tensor, "*batch"]:
        """Vertical field of view of perspective cameras that stand there and show as much where the world's
        origin lies, for turntables and pages: `fov_y_deg` of those that are perspective."""
        if self.is_orthographic is None:
            return self.fov_y_deg
        slope = 0.5 / (self.K_norm[..., 1, 1] * self.centers.norm(dim=-1).clamp_min(1e-12))
        return torch.where(self.is_orthographic, torch.rad2deg(2 * torch.atan(slope)), self.fov_y_deg)

    @property
    def elevation_deg(self) -> Float[Tensor, "*batch"]:
        """Angle of the camera above the horizon of the world's origin."""
        return sphere_angles(self.centers)[0]

    @property
    def azimuth_deg(self) -> Float[Tensor, "*batch"]:
        """Angle around +y in [0, 360): 0 looks from +z, 90 from +x."""
        return sphere_angles(self.centers)[1]

    @property
    def projections(self) -> Float[Tensor, "*batch 3 4"]:
        """Projection matrices: from the world to homogeneous image coordinates, 0 to 1 over the image."""
        w2c = self.w2c[..., :3, :]
        if self.is_orthographic is not None:
            # An affine camera's last row (Hartley and Zisserman 2004, 6.3): nothing is divided by depth.
            affine = torch.diag_embed(torch.ones_like(self.c2w[..., 0]))[..., 3:, :]
            rows = torch.cat([w2c[..., :2, :], affine], dim=-2)
            w2c = torch.where(self.is_orthographic[..., None, None], rows, w2c)
        return self.K_norm @ w2c

    def intrinsics(self, height: int, width: int) -> Float[Tensor, "*batch 3 3"]:
        """Intrinsics in pixels of an image of that size."""
        x, y, one = self.K_norm.unbind(-2)  # rows; a factor made on the host would hold a GPU up
        return torch.stack([x * width, y * height, one], dim=-2)

    def canonicalised(
        self, reference: Float[Tensor, "*scenes 4 4"], radius: float | Float[Tensor, "*scenes"] = RADIUS
    ) -> Cameras:
        """Cameras [*scenes, V] in the frame that `canonicalise` moves the world to. What an orthographic
        camera sees has a size in the world's unit, which changes with all distances."""
        moved = replace(self, c2w=canonicalise(self.c2w, reference, radius))
        # The factor by which `canonicalise` scales the world.
        scale = radius / reference[..., :3, 3].norm(dim=-1).clamp_min(1e-6)
        return moved.for_scaled_world(scale[..., None])

    def for_scaled_world(self, scale: float | Float[Tensor, "*#batch"]) -> Cameras:
        """Intrinsics that see the same in a world whose distances are `scale` times as large; poses stay. Of
        perspective cameras they are the same."""
        if self.is_orthographic is None:
            return self
        scale = torch.as_tensor(scale, dtype=self.K_norm.dtype, device=self.device)
        divisor = torch.ones_like(self.K_norm)
        divisor[..., :2, :2] = torch.where(self.is_orthographic, scale, 1.0)[..., None, None]
        return replace(self, K_norm=self.K_norm / divisor)

    def __getitem__(self, index: Any) -> Cameras:
        return self._each(lambda x: x[index])

    def expand(self, *shape: int) -> Cameras:
        """Of a larger batch shape, without a copy."""
        flags = self.is_orthographic
        return Cameras(
            self.c2w.expand(*shape, 4, 4),
            self.K_norm.expand(*shape, 3, 3),
            None if flags is None else flags.expand(*shape),
        )

    def to(self, *args: Any, **kwargs: Any) -> Cameras:
        """On another device, or with another float type, as `Tensor.to`."""
        c2w, flags = self.c2w.to(*args, **kwargs), self.is_orthographic
        if flags is not None:  # to the device alone, not to a float type
            flags = flags.to(c2w.device, non_blocking=kwargs.get("non_blocking", False))
        return Cameras(c2w=c2w, K_norm=self.K_norm.to(*args, **kwargs), is_orthographic=flags)

    def pin_memory(self) -> Cameras:
        """In page-locked host memory, from which copies to a GPU are asynchronous."""
        return self._each(lambda x: x.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Cameras:
        flags = self.is_orthographic
        return Cameras(change(self.c2w), change(self.K_norm), None if flags is None else change(flags))


def _centred(
    c2w: Float[Tensor, "*batch 4 4"], focal_y: Tensor, aspect: Tensor
) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics of square pixels, with the principal point in the middle."""
    K_norm = torch.zeros(*c2w.shape[:-2], 3, 3, dtype=c2w.dtype, device=c2w.device)
    # Square pixels: the same focal length in pixels along both axes.
    K_norm[..., 0, 0] = focal_y / aspect
    K_norm[..., 1, 1] = focal_y
    K_norm[..., 0, 2] = 0.5
    K_norm[..., 1, 2] = 0.5
    K_norm[..., 2, 2] = 1.0
    return K_norm
