"""Cameras see the same after a move of the world."""

import pytest
import torch

from lgm.cameras import Cameras
from lgm.cameras.similarity import moved


@pytest.mark.parametrize("is_orthographic", [None, [True, False]])
def test_moved_cameras_see_the_same_points(is_orthographic):
    cameras = Cameras.orbit([10.0, -20.0], [30.0, 200.0])
    if is_orthographic is not None:
        cameras = Cameras(cameras.c2w, cameras.K_norm, torch.tensor(is_orthographic))
    turn = Cameras.orbit([40.0], [70.0]).c2w[0, :3, :3]
    similarity = torch.eye(4)
    similarity[:3, :3] = 2.5 * turn
    similarity[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    points = torch.randn(3, 20) * 0.3

    def seen(cameras: Cameras, points: torch.Tensor) -> torch.Tensor:
        local = cameras.w2c[:, :3, :3] @ points + cameras.w2c[:, :3, 3:]
        depth = local[:, 2:].clone()
        if cameras.is_orthographic is not None:
            depth[cameras.is_orthographic] = 1.0
        return cameras.K_norm[:, :2] @ torch.cat([local[:, :2] / depth, torch.ones_like(depth)], dim=1)

    after = moved(cameras, similarity)
    assert torch.allclose(
        seen(cameras, points), seen(after, similarity[:3, :3] @ points + similarity[:3, 3:]), atol=1e-4
    )
    assert torch.allclose(torch.linalg.det(after.c2w[:, :3, :3]), torch.ones(2), atol=1e-5)
