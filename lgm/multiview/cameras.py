"""The cameras that condition multi-view diffusion: sixteen numbers per view, in the networks' own axes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import orbit_poses
from lgm.cameras.conventions import opencv_to_opengl, y_up_to_z_up


def camera_numbers(
    elevation_deg: float, num_views: int = 4, extra_view: bool = False
) -> Float[Tensor, "V 16"]:
    """Camera-to-world poses of a ring, row by row: Blender's world (+z up), OpenGL's camera axes, radius 1,
    azimuth 0 first.

    elevation_deg: positive is above the object. extra_view: zeros for one more view, which holds ImageDream's
        image itself.
    """
    azimuth_deg = [360 / num_views * view for view in range(num_views)]
    poses = y_up_to_z_up(opencv_to_opengl(orbit_poses([elevation_deg] * num_views, azimuth_deg, radius=1.0)))
    # Row-major, 16 numbers per view: the networks were trained on flattened matrices.
    numbers = poses.flatten(1)
    return torch.cat([numbers, numbers.new_zeros(1, 16)]) if extra_view else numbers
