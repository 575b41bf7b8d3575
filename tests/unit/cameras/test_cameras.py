"""The conventions, in numbers: a known camera, a known pixel, a known ray."""

import math

import pytest
import torch

from lgm.cameras import Cameras, canonicalise, orbit_poses, pixel_rays, plucker_rays, spiral_angles
from lgm.cameras.conventions import (
    opencv_to_opengl,
    opengl_to_opencv,
    y_up_to_z_up,
    z_up_to_y_up,
)


def project(cameras: Cameras, points: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """World points [P, 3] to pixels [V, P, 2]."""
    local = points @ cameras.w2c[..., :3, :3].transpose(-1, -2) + cameras.w2c[..., None, :3, 3]
    pixels = local @ cameras.intrinsics(height, width).transpose(-1, -2)
    return pixels[..., :2] / pixels[..., 2:]


@pytest.mark.parametrize(
    ("elevation", "azimuth", "center"),
    [
        (0, 0, (0, 0, 1.5)),
        (0, 90, (1.5, 0, 0)),
        (0, 180, (0, 0, -1.5)),
        (0, 270, (-1.5, 0, 0)),
        (90, 0, (0, 1.5, 0)),
        (-30, 0, (0, -0.75, 1.5 * math.cos(math.radians(30)))),
    ],
)
def test_orbit_stands_where_its_angles_say(elevation, azimuth, center):
    cameras = Cameras.orbit([elevation], [azimuth])
    assert torch.allclose(cameras.centers[0], torch.tensor(center, dtype=torch.float32), atol=1e-6)
    # +z of the camera points at the origin.
    forward = cameras.c2w[0, :3, 2]
    assert torch.allclose(forward, -cameras.centers[0] / 1.5, atol=1e-6)
    if abs(elevation) < 90:
        assert cameras.elevation_deg.item() == pytest.approx(elevation, abs=1e-3)
        assert cameras.azimuth_deg.item() % 360 == pytest.approx(azimuth, abs=1e-3)


def test_world_axes_in_the_image():
    """From +z: +x is to the right, +y is at the top. From +x: -z is to the right."""
    cameras = Cameras.orbit([0, 0], [0, 90])
    points = torch.tensor([[0.3, 0, 0], [0, 0.3, 0], [0, 0, -0.3]])
    pixels = project(cameras, points, 100, 100)
    assert pixels[0, 0, 0] > 60 and pixels[0, 0, 1] == pytest.approx(50, abs=1e-3)
    assert pixels[0, 1, 1] < 40 and pixels[0, 1, 0] == pytest.approx(50, abs=1e-3)
    assert pixels[1, 2, 0] > 60


def test_rays_go_through_pixel_centres():
    cameras = Cameras.orbit([20.0], [35.0], fov_y_deg=60.0, aspect=8 / 6)
    origins, directions = pixel_rays(cameras, 6, 8)
    points = (origins + 1.7 * directions)[0].flatten(1).T
    pixels = project(cameras, points, 6, 8)[0].reshape(6, 8, 2)
    v, u = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    assert torch.allclose(pixels, torch.stack([u, v], dim=-1), atol=1e-4)
    assert torch.allclose(directions.norm(dim=1), torch.ones(1, 6, 8))


def test_middle_ray_of_the_front_camera():
    """An odd image's middle pixel looks straight down -z; its moment is o × d."""
    rays = plucker_rays(Cameras.orbit([0.0], [0.0]), 3, 3)[0, :, 1, 1]
    assert torch.allclose(rays, torch.tensor([0.0, 0, 0, 0, 0, -1]), atol=1e-6)


def test_field_of_view_spans_the_height():
    cameras = Cameras.orbit([0.0], [0.0], fov_y_deg=49.1, aspect=2.0)
    top = math.tan(math.radians(49.1 / 2)) * 1.5
    pixels = project(cameras, torch.tensor([[0.0, top, 0], [2 * top, 0, 0]]), 50, 100)
    assert pixels[0, 0, 1] == pytest.approx(0, abs=1e-3)
    assert pixels[0, 1, 0] == pytest.approx(100, abs=1e-3)
    assert cameras.fov_y_deg.item() == pytest.approx(49.1, abs=1e-4)


def test_conversions_undo_each_other():
    c2w = orbit_poses([10, -40], [20, 250])
    assert torch.equal(opengl_to_opencv(opencv_to_opengl(c2w)), c2w)
    assert torch.allclose(z_up_to_y_up(y_up_to_z_up(c2w)), c2w)
    # Up is +z in Blender's world.
    above = y_up_to_z_up(orbit_poses([90], [0]))[0, :3, 3]
    assert torch.allclose(above, torch.tensor([0, 0, 1.5]), atol=1e-6)


def test_canonical_frame_moves_the_first_camera_home_and_the_rest_with_it():
    c2w = orbit_poses([15, -20, 50], [40, 130, 300], radius=1.5)[None]
    moved = canonicalise(c2w, c2w[:, 0], radius=1.5)
    assert torch.allclose(moved[0, 0], orbit_poses([0], [0], 1.5)[0], atol=1e-6)
    assert torch.allclose(
        torch.linalg.inv(moved[0, 0]) @ moved[0, 1], torch.linalg.inv(c2w[0, 0]) @ c2w[0, 1], atol=1e-5
    )


def test_w2c_is_the_inverse():
    cameras = Cameras.orbit([15, -20], [40, 130])
    assert torch.allclose(cameras.w2c @ cameras.c2w, torch.eye(4).expand(2, 4, 4), atol=1e-6)


def test_spiral_covers_the_sphere_evenly():
    elevation_deg, azimuth_deg = spiral_angles(100)
    heights = torch.sin(torch.deg2rad(elevation_deg))
    steps = heights.diff()
    assert elevation_deg[0] == pytest.approx(85) and elevation_deg[-1] == pytest.approx(-85)
    assert torch.allclose(steps, steps[0].expand_as(steps))
    assert (azimuth_deg >= 0).all() and (azimuth_deg < 360).all()


def test_bad_shapes_and_angles_are_named(any_shape):
    with pytest.raises(ValueError, match="K_norm"):
        Cameras(torch.eye(4)[None], torch.eye(3).expand(2, 3, 3))
    with pytest.raises(ValueError, match="fov_y_deg=200"):
        Cameras.from_fov(torch.eye(4)[None], 200.0)


@pytest.mark.parametrize(
    ("angles", "options", "message"),
    [
        (([0.0], [0.0]), {"radius": 0.0}, "radius=0 must be above 0"),
        (([0.0], [0.0]), {"radius": torch.tensor([-1.5])}, "radius=-1.5 must be above 0"),
        (([0.0], [0.0]), {"radius": float("nan")}, "radius=nan must be above 0"),
        (([float("nan")], [0.0]), {}, "elevation_deg=nan must be finite"),
        (([0.0], torch.tensor([float("inf")])), {}, "azimuth_deg=inf must be finite"),
        (([0.0], [0.0]), {"aspect": 0.0}, "aspect=0 must be above 0"),
        (([0.0], [0.0]), {"aspect": -1.0}, "aspect=-1 must be above 0"),
        (([0.0, 1.0], [0.0, 1.0, 2.0]), {}, r"shape \[2\] and azimuth_deg of shape \[3\] do not go together"),
        (([0.0, 1.0], [0.0, 1.0]), {"radius": torch.ones(3)}, r"radius of shape \[3\] fits no cameras"),
        (([0.0, 1.0], [0.0, 1.0]), {"fov_y_deg": torch.ones(3)}, r"fov_y_deg of shape \[3\] fits no"),
    ],
)
def test_orbits_that_cannot_be_are_one_line(angles, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Cameras.orbit(*angles, **options)
    assert "\n" not in str(caught.value)


def test_poses_of_whole_numbers_are_refused(any_shape):
    """They would truncate the intrinsics to zeros."""
    whole, told = torch.eye(4).long(), r"floats, got torch.int64.* with .float\(\)"
    with pytest.raises(ValueError, match=told):
        Cameras.from_fov(whole, 49.1)
    with pytest.raises(ValueError, match=told):
        Cameras(whole, torch.eye(3))


def test_one_for_all_or_one_for_each():
    elevation, azimuth = [10.0, 20.0, 30.0], torch.tensor([0.0, 90.0, 180.0])
    radius, fov_y_deg = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([30.0, 40.0, 50.0])
    cameras = Cameras.orbit(elevation, azimuth, radius, fov_y_deg)
    torch.testing.assert_close(cameras.centers.norm(dim=-1), radius)
    torch.testing.assert_close(cameras.fov_y_deg, fov_y_deg)
    torch.testing.assert_close(cameras.elevation_deg, torch.tensor(elevation))


def test_an_orbit_is_where_its_angles_are_and_asks_no_device_for_numbers():
    """On the meta device, which has none to give: a GPU would be waited for."""
    angles = torch.zeros(4, device="meta")
    for given in ((angles, angles, torch.ones(4)), ([0.0] * 4, angles, 1.5), ([0.0] * 4, [0.0] * 4, angles)):
        assert Cameras.orbit(*given).c2w.device.type == "meta"
    fovs = torch.zeros(4, device="meta")
    assert Cameras.from_fov(torch.eye(4, device="meta").expand(4, 4, 4), fovs).device.type == "meta"


def test_canonical_frame_scales_sets_that_were_rendered_from_elsewhere():
    """A set rendered from a distance of 3 ends in the frame of one rendered from 1.5."""
    near, far = (orbit_poses([15, -20, 50], [40, 130, 300], radius)[None] for radius in (1.5, 3.0))
    assert torch.allclose(canonicalise(near, near[:, 0]), canonicalise(far, far[:, 0]), atol=1e-5)


def test_rays_are_exact_under_autocast():
    cameras = Cameras.orbit([20.0, -30.0], [35.0, 200.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = plucker_rays(cameras, 16, 16)
    assert torch.equal(inside, plucker_rays(cameras, 16, 16))
