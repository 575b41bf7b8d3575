"""Orthographic cameras: known rays and pixels, the far end of a narrow perspective camera, other frames."""

import pytest
import torch

from lgm.cameras import Cameras, orbit_poses, pixel_rays, plucker_rays

HEIGHT = 2.0  # of what they see
POSES = orbit_poses([0.0, 20.0, -35.0], [0.0, 70.0, 200.0], 1.5)


def narrow(c2w, distance=1e4):
    """Perspective cameras far behind, that see as much of what lies around the origin."""
    away = c2w.double().clone()
    away[..., :3, 3] -= (distance - 1.5) * away[..., :3, 2]
    return Cameras.from_fov(away, torch.rad2deg(2 * torch.atan(torch.tensor(HEIGHT / 2 / distance).double())))


def test_a_known_camera_a_known_pixel_a_known_ray():
    front = Cameras.orthographic(orbit_poses([0.0], [0.0], 1.5), HEIGHT, aspect=2.0)  # at (0, 0, 1.5)
    origins, directions = pixel_rays(front, 2, 4)  # it sees 4 across and 2 down
    torch.testing.assert_close(directions[0, :, 1, 3], torch.tensor([0.0, 0.0, -1.0]))
    torch.testing.assert_close(origins[0, :, 1, 3], torch.tensor([1.5, -0.5, 1.5]))  # right of and below
    torch.testing.assert_close(origins[0, :, 0, 0], torch.tensor([-1.5, 0.5, 1.5]))
    point = front.projections[0] @ torch.tensor([1.0, 0.5, 0.3, 1.0])
    torch.testing.assert_close(point, torch.tensor([0.75, 0.25, 1.0]))  # whatever its depth
    assert front.fov_y_deg.tolist() == [0.0]


def test_rays_and_projections_are_those_of_a_narrow_camera_far_away():
    ours, far = Cameras.orthographic(POSES.double(), HEIGHT), narrow(POSES)
    rays, expected = plucker_rays(ours, 8, 8), plucker_rays(far, 8, 8)
    torch.testing.assert_close(rays, expected, atol=3e-4, rtol=0)
    points = torch.rand(50, 3, dtype=torch.float64) - 0.5
    points = torch.cat([points, torch.ones(50, 1)], dim=1).T
    x, y, w = (ours.projections @ points).unbind(1)
    assert torch.equal(w, torch.ones_like(w))
    u, v, depth = (far.projections @ points).unbind(1)
    torch.testing.assert_close(torch.stack([x, y]), torch.stack([u / depth, v / depth]), atol=3e-4, rtol=0)


def test_a_ray_meets_its_pixel():
    ours = Cameras.orthographic(POSES.double(), torch.tensor([1.0, 2.0, 3.0]).double(), 1.5)
    origins, directions = pixel_rays(ours, 4, 6)
    points = (origins + 0.7 * directions).flatten(2)
    seen = ours.projections @ torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    u, v = (torch.arange(6).double() + 0.5) / 6, (torch.arange(4).double() + 0.5) / 4
    torch.testing.assert_close(seen[:, 0].unflatten(-1, (4, 6)), u.expand(3, 4, 6))
    torch.testing.assert_close(seen[:, 1].unflatten(-1, (4, 6)), v[:, None].expand(3, 4, 6))


def test_both_projections_in_one_batch_are_each_its_own():
    perspective, ours = Cameras.from_fov(POSES, 49.1), Cameras.orthographic(POSES, HEIGHT)
    both = Cameras.concatenate([perspective, ours], dim=0)
    assert both.is_orthographic.tolist() == [False] * 3 + [True] * 3
    for part, alone in ((both[:3], perspective), (both[3:], ours)):
        for mine, expected in zip(pixel_rays(part, 4, 4), pixel_rays(alone, 4, 4), strict=True):
            assert torch.equal(mine, expected)
        torch.testing.assert_close(part.projections, alone.projections)
        torch.testing.assert_close(part.fov_y_deg, alone.fov_y_deg)
    assert Cameras.concatenate([perspective, perspective], dim=0).is_orthographic is None


def test_the_projection_stays_with_the_cameras():
    ours = Cameras.orthographic(POSES, HEIGHT)
    for other in (ours[1:], ours[None].expand(2, 3), ours.to(torch.float64), ours.to("cpu", torch.float64)):
        assert other.is_orthographic.dtype == torch.bool and other.is_orthographic.all()
        assert other.is_orthographic.shape == other.shape
    assert Cameras.from_fov(POSES, 40.0).to(torch.float64).is_orthographic is None


@pytest.mark.parametrize("radius", [1.5, torch.tensor([1.5, 3.0])])
def test_another_frame_sees_the_same(radius):
    """Where all distances change, so does the size of what an orthographic camera sees."""
    world = 4.0  # so much larger than the network's
    c2w = torch.stack([POSES, POSES.roll(1, 0)])
    c2w[..., :3, 3] *= world
    both = Cameras.orthographic(c2w, HEIGHT * world)
    moved = both.canonicalised(both.c2w[:, 0], radius)
    seen = moved.projections @ moved.c2w[:, :1] @ torch.tensor([[0.3], [-0.2], [1.0], [1.0]])
    scale = (radius if isinstance(radius, torch.Tensor) else torch.tensor([radius] * 2)) / (1.5 * world)
    point = torch.cat([torch.tensor([0.3, -0.2, 1.0]) / scale[:, None], torch.ones(2, 1)], dim=1)
    expected = both.projections @ both.c2w[:, :1] @ point[:, None, :, None]
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cameras.orthographic(POSES, 0.0), "height=0 must be above 0"),
        (lambda: Cameras.orthographic(POSES, torch.ones(2)), r"height of shape \[2\] fits no cameras"),
    ],
)
def test_what_is_no_camera_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_scaled_world_is_seen_the_same_and_a_page_shows_as_much():
    both = Cameras.concatenate([Cameras.from_fov(POSES, 49.1), Cameras.orthographic(POSES, HEIGHT)], dim=0)
    c2w = both.c2w.clone()
    c2w[..., :3, 3] *= 5
    larger = Cameras(c2w, both.K_norm, both.is_orthographic).for_scaled_world(5.0)
    point = torch.tensor([0.3, 0.2, -0.1, 1.0])
    seen, again = both.projections @ point, larger.projections @ (point * torch.tensor([5.0, 5, 5, 1]))
    torch.testing.assert_close(seen[:, :2] / seen[:, 2:], again[:, :2] / again[:, 2:])
    fov = torch.deg2rad(both.viewing_fov_y_deg / 2)
    torch.testing.assert_close(3.0 * fov[3:].tan(), torch.full((3,), HEIGHT))  # at a distance of 1.5
    torch.testing.assert_close(both.viewing_fov_y_deg[:3], torch.full((3,), 49.1))
