"""EWA splatting (Zwicker et al. 2001): from Gaussians in the world to ellipses in images, in autograd.

Everything is kept one component a tensor, [B, V, N]: long contiguous rows, and no matrix product,
which a training run's TF32 setting would round to ten bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians

# Near plane, in world units along the camera's axis: the published rasterizer culls what is nearer.
NEAR = 0.2
# Rays further outside the image than this fraction of its half size are bent back to it in the
# projection's Jacobian, which is only a local approximation and explodes there.
JACOBIAN_MARGIN = 0.3
# Variance in px² of the low-pass filter: no splat is thinner than about a pixel.
BLUR_VARIANCE = 0.3

Component = Float[Tensor, "B V N"]
Vector = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Splats:
    """Gaussians as the images see them; lengths in pixels, (0, 0) is the first pixel's *centre*.

    x, y: centres.
    cov_xx, cov_yy, cov_xy: covariances, blurred.
    conic_xx, conic_xy, conic_yy: their inverses.
    depths: distances along the camera's axis; 1 where the near plane hides the Gaussian.
    in_front: bool; whether it lies beyond the near plane.
    """

    x: Component
    y: Component
    cov_xx: Component
    cov_xy: Component
    cov_yy: Component
    conic_xx: Component
    conic_xy: Component
    conic_yy: Component
    depths: Component
    in_front: Tensor

    @property
    def radii(self) -> Component:
        """Radius in whole pixels that holds three standard deviations along the longest axis.

        The floor of 0.1 is the published program's; the cut at tiles needs it the same.
        """
        # The larger eigenvalue of the 2 × 2 covariance.
        middle = 0.5 * (self.cov_xx + self.cov_yy)
        half_difference = 0.5 * (self.cov_xx - self.cov_yy)
        spread = (half_difference.square() + self.cov_xy.square()).clamp_min(0.1).sqrt()
        return (3 * (middle + spread).sqrt()).ceil()


def project(gaussians: Gaussians, cameras: Cameras, height: int, width: int) -> Splats:
    """Project Gaussians [B, N] into cameras [B, V]: splats with components [B, V, N], in pixels.

    Differentiable in Gaussians and cameras; not in height and width. Perspective cameras use the local affine
    approximation of EWA splatting, orthographic ones are exact.
    """
    w2c = cameras.w2c[..., None]  # [B, V, 4, 4, 1]
    rotation = [[w2c[..., i, j, :] for j in range(3)] for i in range(3)]
    means = [mean[:, None] for mean in gaussians.means.unbind(-1)]  # 3 × [B, 1, N]
    cam_x, cam_y, cam_z = (_dot(rotation[i], means) + w2c[..., i, 3, :] for i in range(3))
    in_front = cam_z > NEAR
    # A harmless depth for what is hidden: a division by zero would turn zero gradients into NaN.
    z = torch.where(in_front, cam_z, 1.0)
    divisor = z
    if cameras.is_orthographic is not None:  # whose Jacobian is constant: focal lengths, and no depth
        is_parallel = cameras.is_orthographic[..., None]
        divisor = torch.where(is_parallel, 1.0, z)
    slope_x, slope_y = cam_x / divisor, cam_y / divisor

    K = cameras.intrinsics(height, width)[..., None]
    focal_x, focal_y, center_x, center_y = K[..., 0, 0, :], K[..., 1, 1, :], K[..., 0, 2, :], K[..., 1, 2, :]
    bent_x = _bend(slope_x, z, focal_x, center_x, width)
    bent_y = _bend(slope_y, z, focal_y, center_y, height)
    if cameras.is_orthographic is not None:
        bent_x, bent_y = (torch.where(is_parallel, 0.0, bent) for bent in (bent_x, bent_y))
    # The Jacobian's rows in world coordinates: J · W, with J = [[f/z, 0, -f x/z²], …] and W the w2c rotation.
    scale_x, scale_y = focal_x / divisor, focal_y / divisor
    row_x = [scale_x * (rotation[0][j] - bent_x * rotation[2][j]) for j in range(3)]
    row_y = [scale_y * (rotation[1][j] - bent_y * rotation[2][j]) for j in range(3)]

    axes = _scaled_axes(gaussians)
    root_x: Vector = tuple(_dot(row_x, axis) for axis in axes)  # covariance = root · rootᵀ
    root_y: Vector = tuple(_dot(row_y, axis) for axis in axes)
    sharp_xx, sharp_xy, sharp_yy = _dot(root_x, root_x), _dot(root_x, root_y), _dot(root_y, root_y)
    cov_xx, cov_yy = sharp_xx + BLUR_VARIANCE, sharp_yy + BLUR_VARIANCE
    # The determinant as a sum of positive terms (Cauchy-Binet): no cancellation for needles.
    minors = _cross(root_x, root_y)
    determinant = _dot(minors, minors) + BLUR_VARIANCE * (sharp_xx + cov_yy)
    return Splats(
        x=focal_x * slope_x + (center_x - 0.5),
        y=focal_y * slope_y + (center_y - 0.5),
        cov_xx=cov_xx,
        cov_xy=sharp_xy,
        cov_yy=cov_yy,
        conic_xx=cov_yy / determinant,
        conic_xy=-sharp_xy / determinant,
        conic_yy=cov_xx / determinant,
        depths=z,
        in_front=in_front,
    )


def _bend(slope: Tensor, z: Tensor, focal: Tensor, center: Tensor, size: int) -> Tensor:
    """The ray's slope, held within a margin around the image."""
    margin = JACOBIAN_MARGIN * 0.5 * size
    low, high = (-center - margin) / focal, (size - center + margin) / focal
    return slope.clamp(low, high)


def _scaled_axes(gaussians: Gaussians) -> tuple[Vector, Vector, Vector]:
    """The columns of rotation · diag(scales), each of three [B, 1, N]; quaternions as given."""
    w, x, y, z = (q[:, None] for q in gaussians.quats.unbind(-1))
    columns = (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )
    scales = (scale[:, None] for scale in gaussians.scales.unbind(-1))
    return tuple(  # type: ignore[return-value]
        tuple(entry * scale for entry in column) for column, scale in zip(columns, scales, strict=True)
    )


def _dot(a: Vector | list[Tensor], b: Vector | list[Tensor]) -> Tensor:
    return torch.addcmul(torch.addcmul(a[0] * b[0], a[1], b[1]), a[2], b[2])


def _cross(a: Vector, b: Vector) -> Vector:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )
