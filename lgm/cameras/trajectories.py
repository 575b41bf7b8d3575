"""Camera trajectories: orbits, Vogel's spiral over the sphere, and the network's canonical frame."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lgm.cameras.canonical import RADIUS
from lgm.cameras.checks import check_between, check_broadcast
from lgm.cameras.conventions import opengl_to_opencv

GOLDEN_ANGLE_DEG = 180.0 * (3.0 - math.sqrt(5.0))
CANONICAL_AZIMUTHS_DEG = (0.0, 90.0, 180.0, 270.0)


def orbit_poses(
    elevation_deg: Float[Tensor, "*batch"] | Sequence[float],
    azimuth_deg: Float[Tensor, "*batch"] | Sequence[float],
    radius: float | Tensor = RADIUS,
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world poses that look at the origin with the world's +y upwards in the image.

    elevation_deg: positive is above the object (the original program has it the other way round).
    azimuth_deg: 0 stands on +z, 90 on +x.
    radius: above 0; of all, or one for each.

    The poses are float32, on the device that one of the three is on, or the CPU.

    Raises ValueError in one line for angles that are not finite, a radius that is not above 0, and for
    numbers of them that do not go together.
    """
    check_between("elevation_deg", elevation_deg)
    check_between("azimuth_deg", azimuth_deg)
    check_between("radius", radius, low=0.0)
    devices = [x.device for x in (elevation_deg, azimuth_deg, radius) if isinstance(x, Tensor)]
    device = next((device for device in devices if device.type != "cpu"), None)
    elevation, azimuth, radius = (
        torch.as_tensor(x, dtype=torch.float64, device=device) for x in (elevation_deg, azimuth_deg, radius)
    )
    try:
        elevation, azimuth = torch.broadcast_tensors(torch.deg2rad(elevation), torch.deg2rad(azimuth))
    except RuntimeError as error:
        raise ValueError(
            f"elevation_deg of shape {list(elevation.shape)} and azimuth_deg of shape {list(azimuth.shape)} "
            "do not go together: give as many of one as of the other"
        ) from error
    check_broadcast(azimuth.shape, radius=radius)
    # OpenGL's z axis, away from the object; columns below are right, up, backward in OpenGL axes.
    backward = torch.stack(
        [elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], dim=-1
    )
    # From azimuth alone, so that the camera straight above or below still has a right-hand side.
    right = torch.stack([azimuth.cos(), torch.zeros_like(azimuth), -azimuth.sin()], dim=-1)
    up = torch.linalg.cross(backward, right)
    center = backward * radius[..., None]
    c2w = torch.zeros(*azimuth.shape, 4, 4, dtype=torch.float64, device=device)
    c2w[..., :3, :] = torch.stack([right, up, backward, center], dim=-1)  # [*, 3, 4]
    c2w[..., 3, 3] = 1.0
    return opengl_to_opencv(c2w).float()


def spiral_angles(
    num_views: int, max_elevation_deg: float = 85.0
) -> tuple[Float[Tensor, " V"], Float[Tensor, " V"]]:
    """Elevations and azimuths in degrees of a spiral from the top of the sphere to its bottom.

    Equal steps in sin(elevation) give every patch of the sphere the same number of views; turning
    by the golden angle keeps neighbours apart (Vogel's spiral).
    """
    if num_views < 1:
        raise ValueError(f"num_views={num_views} must be at least 1")
    top = math.sin(math.radians(max_elevation_deg))
    heights = torch.linspace(top, -top, num_views, dtype=torch.float64)
    azimuth = (torch.arange(num_views, dtype=torch.float64) * GOLDEN_ANGLE_DEG) % 360
    return torch.rad2deg(torch.asin(heights)), azimuth


def sphere_angles(
    centers: Float[Tensor, "*batch 3"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Elevation above the horizon of the world's origin, and azimuth around +y in [0, 360), in degrees."""
    height = centers[..., 1] / centers.norm(dim=-1).clamp_min(1e-12)
    elevation = torch.rad2deg(torch.asin(height.clamp(-1, 1)))
    return elevation, torch.rad2deg(torch.atan2(centers[..., 0], centers[..., 2])) % 360


def canonicalise(
    c2w: Float[Tensor, "*batch V 4 4"],
    reference: Float[Tensor, "*batch 4 4"],
    radius: float | Float[Tensor, "*batch"] = RADIUS,
) -> Float[Tensor, "*batch V 4 4"]:
    """Move and scale the world so that the camera `reference`, which looks at the origin, stands at
    (0, 0, radius): the frame that the network works in. Images stay as they are: all distances
    change alike, by radius over the reference's own distance from the origin.

    radius: of all, or one for each world.
    """
    distance = reference[..., :3, 3].norm(dim=-1).clamp_min(1e-6)
    # The world is scaled before it is moved: both cameras' centres, so that the poses stay rigid.
    scale = (radius / distance)[..., None, None]
    c2w, reference = c2w.clone(), reference.clone()
    c2w[..., :3, 3] *= scale
    reference[..., :3, 3] *= scale[..., 0]
    home = opengl_to_opencv(torch.eye(4, dtype=c2w.dtype, device=c2w.device))
    home = home.expand_as(reference).clone()
    if isinstance(radius, Tensor):
        home[..., 2, 3] = radius
    else:
        home[..., 2, 3].fill_(radius)  # an assignment would wait for the device
    return home[..., None, :, :] @ rigid_inverse(reference)[..., None, :, :] @ c2w


def from_canonical(
    reference: Float[Tensor, "*batch 4 4"], radius: float | Float[Tensor, "*batch"] = RADIUS
) -> Float[Tensor, "*batch 4 4"]:
    """The inverse of `canonicalise`: a similarity that takes points of the canonical frame to
    points of the world that `reference` is given in."""
    unit = torch.diag_embed(torch.ones_like(reference[..., 0]))
    # A camera at the world's origin, along its axes, carries the world's frame with it.
    forth = canonicalise(unit[..., None, :, :], reference, radius)[..., 0, :, :]
    back = rigid_inverse(forth)
    scale = reference[..., :3, 3].norm(dim=-1).clamp_min(1e-6) / radius
    return torch.cat([back[..., :3, :] * scale[..., None, None], back[..., 3:, :]], dim=-2)


def canonical_up(reference: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 3"]:
    """The world's +y, as a direction in the frame that `canonicalise` moves the world to."""
    home = opengl_to_opencv(torch.eye(4, dtype=reference.dtype, device=reference.device))
    return (home @ rigid_inverse(reference))[..., :3, 1]


def angles_about(
    up: Float[Tensor, "*batch 3"], front: Float[Tensor, "*batch 3"], centers: Float[Tensor, "*batch V 3"]
) -> tuple[Float[Tensor, "*batch V"], Float[Tensor, "*batch V"]]:
    """Elevation and azimuth in degrees of cameras that stand at `centers`, around another up axis.

    up: unit vector. front: where azimuth 0 stands, at whatever elevation.
    """
    up, front = (x[..., None, :].expand_as(centers) for x in (up, front))
    height = (F.normalize(centers, dim=-1) * up).sum(dim=-1)
    sine = (up * torch.linalg.cross(front, centers, dim=-1)).sum(dim=-1)
    # Of what is left of both when their share along the axis is taken away.
    cosine = (front * centers).sum(dim=-1) - (front * up).sum(dim=-1) * (centers * up).sum(dim=-1)
    return torch.rad2deg(torch.asin(height.clamp(-1, 1))), torch.rad2deg(torch.atan2(sine, cosine)) % 360


def turn_about_origin(
    c2w: Float[Tensor, "*batch 4 4"],
    azimuth_rad: Float[Tensor, "*batch"],
    elevation_rad: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch 4 4"]:
    """Carry cameras around the world's origin: their distance from it, and where in the image it
    lies, stay.

    elevation_rad: about the camera's own right axis; positive goes up.
    azimuth_rad: then about the up axis that the camera had before; positive goes from +z to +x.

    About the camera's own axes, as the released program has it, not about the world's: an angle is
    then the same way along the sphere at any elevation (the world's axis would only roll a camera
    above the pole), and the result does not depend on the frame. At elevation 0 the two agree.
    """
    axes = c2w[..., :3, :]  # the columns right, down, forward and centre all turn alike
    right, up = c2w[..., :3, 0], -c2w[..., :3, 1]
    axes = _rotated(_rotated(axes, right, -elevation_rad), up, azimuth_rad)
    return torch.cat([axes, c2w[..., 3:, :]], dim=-2)


def _rotated(
    columns: Float[Tensor, "*batch 3 n"], axis: Float[Tensor, "*batch 3"], angle_rad: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3 n"]:
    """Rodrigues' formula for a unit axis; no matrix product, which a GPU may round to TF32."""
    axis = axis[..., None].expand_as(columns)
    cos, sin = angle_rad.cos()[..., None, None], angle_rad.sin()[..., None, None]
    along = (axis * columns).sum(dim=-2, keepdim=True)
    return columns * cos + torch.linalg.cross(axis, columns, dim=-2) * sin + axis * along * (1 - cos)


def rigid_inverse(pose: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The inverse of a rotation and translation, without a matrix inversion."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    translation = -rotation @ pose[..., :3, 3:]
    return torch.cat([torch.cat([rotation, translation], dim=-1), pose[..., 3:, :]], dim=-2)
