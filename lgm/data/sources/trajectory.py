"""The cameras of objects that are drawn while training, as data_tools.render has them."""

import torch

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, orbit_poses, spiral_angles
from lgm.data.schema.sample import CameraRecord

NUM_CANONICAL = len(CANONICAL_AZIMUTHS_DEG)


def spiral_record(num_views: int, radius: float, fov_y_deg: float) -> CameraRecord:
    """The canonical views, and a spiral over the sphere of all others."""
    elevation_deg, azimuth_deg = spiral_angles(num_views - NUM_CANONICAL)
    elevation_deg = torch.cat([torch.zeros(NUM_CANONICAL), elevation_deg])
    azimuth_deg = torch.cat([torch.tensor(CANONICAL_AZIMUTHS_DEG), azimuth_deg])
    c2w = orbit_poses(elevation_deg, azimuth_deg, radius).double().numpy()
    return CameraRecord(fov_y_deg, c2w, tuple(range(NUM_CANONICAL)))
