import math

import jaxtyping
import pytest
import torch

from lgm.cameras import Cameras, pixel_rays
from lgm.models import LGM
from lgm.models.anchors import pixel_anchors

MICRO = {
    "down_channels": (32, 64),
    "down_attention": (False, True),
    "mid_attention": True,
    "up_channels": (64,),
    "up_attention": (True,),
    "input_size": 32,
}


def views(num_views: int, batch: int = 2) -> Cameras:
    azimuth = torch.arange(num_views) * 360 / num_views
    cameras = Cameras.orbit(torch.zeros(num_views), azimuth)
    return Cameras(
        cameras.c2w.expand(batch, -1, -1, -1).clone(), cameras.K_norm.expand(batch, -1, -1, -1).clone()
    )


@pytest.mark.parametrize("num_views", [1, 2, 4, 6])
def test_any_number_of_views(num_views):
    net = LGM(**MICRO, num_input_views=num_views)
    gaussians = net(torch.rand(2, num_views, 3, 32, 32), views(num_views))
    assert gaussians.num_gaussians == net.num_gaussians == num_views * net.splat_size**2


def test_gaussians_are_view_major():
    net = LGM(**MICRO)
    raw = torch.zeros(1, 4, 14, 16, 16)
    raw[:, 2, :3, 5, 7] = 0.5
    means = net.decode(raw).means[0]
    assert means.any(dim=-1).nonzero().tolist() == [[2 * 256 + 5 * 16 + 7]]


def test_every_view_sees_every_other():
    net = LGM(**MICRO).eval()
    images, cameras = torch.rand(1, 4, 3, 32, 32), views(4, 1)
    changed = images.clone()
    changed[:, 3] = 0
    with torch.no_grad():
        before, after = net(images, cameras).packed(), net(changed, cameras).packed()
    assert (before - after)[0, :256].abs().max() > 0


def test_scenes_of_a_batch_do_not_mix():
    net = LGM(**MICRO).eval()
    images = torch.rand(2, 4, 3, 32, 32)
    with torch.no_grad():
        together = net(images, views(4)).packed()
        alone = net(images[1:], views(4, 1)).packed()
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_first_gaussians_are_small():
    """Half the spacing of the splat map's pixels at the object, give or take."""
    torch.manual_seed(0)
    net = LGM(**MICRO)
    with torch.no_grad():
        scales = net(torch.rand(2, 4, 3, 32, 32), views(4)).scales
    spacing = 1.37 / net.splat_size
    assert 0.35 * spacing < scales.mean() < 0.65 * spacing
    assert scales.max() < spacing


def test_shapes_are_checked_at_the_door():
    net = LGM(**MICRO)
    with pytest.raises(ValueError, match="multiples of 2"):
        net.splat_map(torch.rand(1, 4, 9, 33, 32))
    with pytest.raises(ValueError, match="cameras"):
        net(torch.rand(1, 4, 3, 32, 32), views(3, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": 33}, "input_size=33"),
        ({"down_attention": (True,)}, "down_attention"),
        ({"up_channels": (64, 32, 32), "up_attention": (False,) * 3}, "up_channels"),
        ({"num_input_views": 0}, "num_input_views=0"),
        ({"rotation": "sideways"}, "rotation='sideways'"),
        ({"anchors": "sky"}, "anchors='sky'"),
        ({"down_channels": (32, 40), "up_channels": (40,)}, "heads|groups|divisible"),
    ],
)
def test_impossible_networks_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LGM(**{**MICRO, **change})


def test_anchored_gaussians_start_at_their_pixels():
    """Raw zeros: a Gaussian lies on its own pixel's ray, seen from any camera, with its colour."""
    net = LGM(**MICRO, anchors="pixels")
    cameras, images = views(4, 1), torch.rand(1, 4, 3, 32, 32) * 0.9 + 0.05
    gaussians = net.decode(torch.zeros(1, 4, 14, 16, 16), net.pixel_anchors(images, cameras))
    means = gaussians.means[0].reshape(4, 256, 3)
    w2c, K = cameras.w2c[0], cameras.intrinsics(16, 16)[0]
    for view in range(4):
        local = means[view] @ w2c[view, :3, :3].T + w2c[view, :3, 3]
        pixels = local @ K[view].T
        pixels = (pixels[:, :2] / pixels[:, 2:]).reshape(16, 16, 2)
        v, u = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(16) + 0.5, indexing="ij")
        assert torch.allclose(pixels, torch.stack([u, v], dim=-1), atol=1e-3)
    averaged = torch.nn.functional.avg_pool2d(images[0], 2)
    colors = gaussians.colors[0].reshape(4, 16, 16, 3).permute(0, 3, 1, 2)
    assert torch.allclose(colors, averaged, atol=1e-5)


def test_the_hull_of_a_ball_is_near_its_surface():
    """Each pixel's ray enters the hull where it meets the ball, or at most a little before."""
    cameras, radius = views(4, 1), 0.4
    origins, directions = pixel_rays(cameras, 64, 64)
    along = -(origins * directions).sum(dim=2, keepdim=True)
    squared = (origins + along * directions).square().sum(dim=2, keepdim=True)
    inside = squared < radius**2  # [1, V, 1, H, W]
    surface = origins + (along - (radius**2 - squared).clamp_min(0).sqrt()) * directions
    images = torch.where(inside, 0.5, 1.0).expand(-1, -1, 3, -1, -1)
    means = pixel_anchors(images, cameras, (64, 64), "hull").means.view(1, 4, 64, 64, 3).movedim(-1, 2)
    ahead = ((surface - means) * directions).sum(dim=2)[inside[:, :, 0]]
    assert ahead.min() > -0.05 and ahead.median() < 0.1
    outside = means - (origins + along * directions)
    assert outside.abs()[~inside.expand_as(outside)].max() < 1e-6


def test_pixels_that_an_object_covers_in_part_start_on_it_too():
    """A box far from the middle, in a splat map of a quarter of the images' pixels."""
    cameras, low, high = views(4, 1), torch.tensor([-0.2, -0.2, 0.3]), torch.tensor([0.2, 0.2, 0.4])
    origins, directions = (x.movedim(2, -1) for x in pixel_rays(cameras, 64, 64))
    ends = torch.stack([(low - origins) / directions, (high - origins) / directions])
    enter, leave = ends.amin(dim=0).amax(dim=-1), ends.amax(dim=0).amin(dim=-1)
    images = torch.where(enter < leave, 0.5, 1.0)[:, :, None].expand(-1, -1, 3, -1, -1)
    covered = torch.nn.functional.avg_pool2d((enter < leave).float()[0], 4)[0]
    hull, nearest = (
        pixel_anchors(images, cameras, (16, 16), kind).means.view(4, 16, 16, 3)[0, ..., 2]
        for kind in ("hull", "pixels")
    )
    partly = (covered > 0) & (covered < 0.5)
    assert partly.any() and (hull[partly] > 0.25).all() and (nearest[partly] < 0.25).all()
    assert torch.equal(hull[covered == 0], nearest[covered == 0])


def test_where_a_ray_enters_the_hull_is_known_finer_than_its_samples():
    cameras, radius, distance = views(4, 1), 0.39, 1.5
    origins, directions = pixel_rays(cameras, 256, 256)
    nearest = origins - (origins * directions).sum(dim=2, keepdim=True) * directions
    images = torch.where(nearest.norm(dim=2, keepdim=True) < radius, 0.5, 1.0).expand(-1, -1, 3, -1, -1)
    means = pixel_anchors(images, cameras, (64, 64), "hull").means.view(4, 64, 64, 3)
    # Straight ahead the ray is cut by the lines from the neighbouring cameras that touch the ball.
    edge = distance * math.tan(math.asin(radius / distance))
    assert abs(means[0, 32, 32, 2] - edge) < 0.008  # a pixel is 0.005, and samples are 0.022 apart


def test_a_silhouette_too_small_costs_the_hull_no_ray():
    """A view without the object excludes every point: of equal counts, the first within the others."""
    cameras = views(4, 1)
    images = torch.ones(1, 4, 3, 32, 32)
    images[:, :, :, 8:24, 8:24] = 0.3
    whole = pixel_anchors(images, cameras, (32, 32), "hull").means[:, : 32 * 32]
    images[:, 2] = 1.0
    torch.testing.assert_close(pixel_anchors(images, cameras, (32, 32), "hull").means[:, : 32 * 32], whole)
    grey = images.clamp_max(0.9)
    pixels = pixel_anchors(grey, cameras, (32, 32), "pixels").means
    torch.testing.assert_close(pixel_anchors(grey, cameras, (32, 32), "hull").means, pixels)
    alone = Cameras(cameras.c2w[:, :1], cameras.K_norm[:, :1])
    nearest = pixel_anchors(images[:, :1], alone, (32, 32), "pixels").means
    torch.testing.assert_close(pixel_anchors(images[:, :1], alone, (32, 32), "hull").means, nearest)


def test_scales_stay_within_their_bounds_and_start_where_released_ones_do():
    torch.manual_seed(0)
    net = LGM(**MICRO, scale_bounds=[0.0005, 0.1])
    torch.manual_seed(0)
    released = LGM(**MICRO)
    raw = 100 * torch.randn(1, 4, 14, 16, 16)
    scales = net.decode(raw).scales
    assert 0.0005 <= scales.min() < 0.0006 and 0.099 < scales.max() <= 0.1
    images, cameras = torch.rand(1, 4, 3, 32, 32), views(4, 1)
    torch.testing.assert_close(
        net(images, cameras).scales.mean(), released(images, cameras).scales.mean(), rtol=0.1, atol=0
    )
    with pytest.raises(ValueError, match=r"scale_bounds=\[0.0005, 0.01\] must hold the scale"):
        LGM(**MICRO, scale_bounds=[0.0005, 0.01])
    with pytest.raises(ValueError, match="two numbers"):
        LGM(**MICRO, scale_bounds=[0.0005])


def test_anchors_are_for_networks_that_were_trained_with_them():
    raw, cameras, images = torch.zeros(1, 4, 14, 16, 16), views(4, 1), torch.rand(1, 4, 3, 32, 32)
    anchored, plain = LGM(**MICRO, anchors="pixels"), LGM(**MICRO)
    assert plain.pixel_anchors(images, cameras) is None
    with pytest.raises(ValueError, match=r"anchors='pixels' .* anchors=net.pixel_anchors\(images, cameras\)"):
        anchored.decode(raw)
    with pytest.raises(ValueError, match="anchors='none'; leave them out"):
        plain.decode(raw, anchored.pixel_anchors(images, cameras))
    with pytest.raises(ValueError, match=r"needs anchors of shape \(1, 256, 3\), got \(1, 1024, 3\)"):
        anchored.decode(raw[..., :8, :8], anchored.pixel_anchors(images, cameras))


@pytest.mark.parametrize("anchors", ["none", "pixels", "hull"])
@pytest.mark.parametrize("size", [(40, 40), (16, 16), (24, 32)])
def test_images_of_another_size(anchors, size):
    """The splat map follows, and each Gaussian of raw zeros still starts on its own pixel's ray."""
    net, (height, width) = LGM(**MICRO, num_input_views=2, anchors=anchors), size
    cameras, images = views(2, 1), torch.ones(1, 2, 3, *size)
    images[..., height // 4 : -height // 4, width // 4 : -width // 4] = 0.3
    with torch.no_grad():
        gaussians = net(images, cameras)
    rows, columns = height // 2, width // 2
    assert gaussians.num_gaussians == 2 * rows * columns and gaussians.means.isfinite().all()
    if anchors != "none":
        given = net.pixel_anchors(images, cameras)
        origins, directions = pixel_rays(cameras, rows, columns)
        away = given.means.view(1, 2, rows, columns, 3).movedim(-1, 2) - origins
        assert torch.linalg.cross(away, directions, dim=2).abs().max() < 1e-5
        averaged = torch.nn.functional.avg_pool2d(images[0], 2).permute(0, 2, 3, 1).reshape(1, -1, 3)
        torch.testing.assert_close(given.colors, averaged)


@pytest.fixture
def unchecked():
    """Shapes in signatures are for the tests of what is right; here a person is told what is wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("anchors", ["none", "pixels"])
def test_what_no_network_takes_is_told_in_one_line(anchors, unchecked):
    net, cameras, images = LGM(**MICRO, anchors=anchors), views(4, 1), torch.rand(1, 4, 3, 32, 32)
    for wrong, message in (
        ((images * 255).to(torch.uint8), "floats in 0..1, got torch.uint8; divide whole numbers by 255"),
        (images[:, :, :2], r"shape \[B, V, 3, H, W\], .* got \(1, 4, 2, 32, 32\)"),
        (images[0], r"got \(4, 3, 32, 32\)"),
        (images[..., :31, :], "multiples of 2, got 31 × 32"),
        (images[..., :0, :], "multiples of 2, got 0 × 32"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            net(wrong, cameras)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="at least one view, got"):
        net(images[:, :0], cameras[:, :0])
    with pytest.raises(ValueError, match="at least one view, got"):
        net.splat_map(torch.rand(1, 0, 9, 32, 32))
    for shape in ((1, 4, 13, 16, 16), (4, 14, 16, 16)):
        with pytest.raises(ValueError, match=r"a splat map has shape \[B, V, 14, h, w\], got") as caught:
            net.decode(torch.zeros(shape))
        assert "\n" not in str(caught.value)
