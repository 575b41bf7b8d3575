"""Cameras and rays, against the original's."""

import torch

from lgm.cameras import Cameras, canonicalise, plucker_rays
from lgm.cameras.conventions import opencv_to_opengl, z_up_to_y_up


def _orbit(tensors: dict) -> Cameras:
    # In the original, elevation is negative upwards.
    elevation_deg, azimuth_deg = tensors["elevation_azimuth_deg"].unbind(-1)
    return Cameras.orbit(-elevation_deg, azimuth_deg, radius=1.5, fov_y_deg=49.1)


def test_orbit(golden):
    tensors, _ = golden("cameras")
    assert (opencv_to_opengl(_orbit(tensors).c2w) - tensors["c2w_opengl"]).abs().max() <= 1e-5


def test_training_renders_in_blender_axes(golden):
    tensors, _ = golden("cameras")
    ours = z_up_to_y_up(tensors["c2w_blender_world_opencv_camera"])
    assert (ours - _orbit(tensors).c2w).abs().max() <= 1e-5


def test_plucker_rays(golden):
    tensors, metadata = golden("cameras")
    rays = plucker_rays(_orbit(tensors), metadata["size"], metadata["size"])
    assert (rays - tensors["plucker"]).abs().max() <= 1e-5


def test_relative_poses(golden):
    tensors, _ = golden("cameras")
    c2w = _orbit(tensors).c2w
    relative = opencv_to_opengl(canonicalise(c2w, c2w[0], radius=1.5))
    assert (relative - tensors["c2w_relative_opengl"]).abs().max() <= 1e-5


def test_view_and_projection_matrices(golden):
    tensors, metadata = golden("cameras")
    c2w = _orbit(tensors).c2w
    cameras = Cameras.from_fov(canonicalise(c2w, c2w[0]), metadata["fovy_deg"])
    assert (cameras.w2c.transpose(-1, -2) - tensors["cam_view"]).abs().max() <= 1e-5
    # The original's projection gives -1..1 where K_norm gives 0..1.
    points = torch.rand(5, 3) * 1.2 - 0.6  # where objects are: far enough from every camera
    homogeneous = torch.cat([points, torch.ones(5, 1)], dim=-1)
    theirs = homogeneous @ tensors["cam_view_proj"]  # [V, 5, 4]
    theirs = theirs[..., :2] / theirs[..., 3:] * 0.5 + 0.5
    ours = (homogeneous @ cameras.w2c.transpose(-1, -2))[..., :3] @ cameras.K_norm.transpose(-1, -2)
    assert (ours[..., :2] / ours[..., 2:] - theirs).abs().max() <= 1e-5
