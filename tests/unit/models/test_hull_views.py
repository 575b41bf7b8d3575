"""Drafts: images of the inputs' visual hull from where no input stands."""

import pytest
import torch
from torch import Tensor

from lgm.cameras import Cameras, pixel_rays
from lgm.models import LGM, FastLGM
from lgm.models.anchors import pixel_anchors
from lgm.models.hull_views import hull_view_cameras, hull_view_poses, render_hull_views

SIZE = 64
TINY = dict(
    down_channels=(32, 32), down_attention=(False, False), mid_attention=False, up_channels=(32,),
    up_attention=(False,), input_size=SIZE,
)  # fmt: skip
RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)


def ball(cameras: Cameras, center=(0.0, 0.0, 0.0), radius=0.4) -> Tensor:
    """Images [B, V, 3, SIZE, SIZE] of a ball, red above and blue below, over white."""
    origins, directions = pixel_rays(cameras, SIZE, SIZE)
    offset = origins - torch.tensor(center)[:, None, None]
    middle = -(offset * directions).sum(dim=2, keepdim=True)
    gap = radius**2 - (offset.square().sum(dim=2, keepdim=True) - middle**2)
    surface = offset + (middle - gap.clamp_min(0).sqrt()) * directions
    color = torch.where(surface[:, :, 1:2] > 0, *(torch.tensor(c)[:, None, None] for c in (RED, BLUE)))
    return torch.where(gap > 0, color, 1.0)


def ring(num_views: int = 4, num_objects: int = 1) -> Cameras:
    made = Cameras.orbit([0.0] * num_views, [360 / num_views * i for i in range(num_views)])
    return Cameras(*(x.expand(num_objects, *x.shape) for x in (made.c2w, made.K_norm)))


def drawn(cameras: Cameras, images: Tensor):
    seen_from = hull_view_cameras(cameras, hull_view_poses([90.0, -90.0]))
    return seen_from, *render_hull_views(images, cameras, seen_from, (SIZE, SIZE))


@pytest.mark.parametrize("num_views", [2, 4, 6])
def test_a_ball_is_red_from_above_and_blue_from_below(num_views):
    cameras = ring(num_views, num_objects=2)
    _, images, points = drawn(cameras, ball(cameras))
    assert images.shape == points.shape == (2, 2, 3, SIZE, SIZE)
    middle = images[:, :, :, SIZE // 2, SIZE // 2]
    torch.testing.assert_close(middle, torch.tensor([RED, BLUE]).expand(2, 2, 3), atol=0.02, rtol=0)
    torch.testing.assert_close(images[:, :, :, 0, 0], torch.ones(2, 2, 3))
    height = points[:, :, 1, SIZE // 2, SIZE // 2]
    torch.testing.assert_close(height, torch.tensor([0.4, -0.4]).expand(2, 2), atol=0.03, rtol=0)


def test_points_lie_within_all_silhouettes_and_cover_the_object():
    cameras = ring()
    seen_from, images, points = drawn(cameras, ball(cameras, (0.1, -0.05, 0.1), 0.3))
    truth = ball(seen_from, (0.1, -0.05, 0.1), 0.3)
    is_hit, is_object = (x.amin(dim=2) < 0.98 for x in (images, truth))
    assert (is_hit & is_object).sum() >= 0.98 * is_object.sum()
    assert is_hit.sum() < 1.5 * is_object.sum()  # four level views leave a rounded square
    hits = points.movedim(2, -1)[is_hit] - torch.tensor([0.1, -0.05, 0.1])
    assert (hits[:, 1].abs() < 0.33).all() and (hits.abs().amax(dim=-1) < 0.42).all()
    assert points.movedim(2, -1)[~is_hit][:, 1].abs().max() < 0.6  # else nearest to the origin


def test_images_that_are_not_over_white_have_no_hull():
    cameras = ring()
    grey = torch.full((1, 4, 3, SIZE, SIZE), 0.5)
    _, images, points = drawn(cameras, grey)
    assert (images == 1).all() and points.isfinite().all()


def test_the_network_takes_hull_views_as_further_views():
    torch.manual_seed(0)
    cameras = ring(num_objects=2)
    images = ball(cameras)
    net = LGM(**TINY, anchors="hull", draft_elevations_deg=[90.0, -90.0]).eval()
    with torch.no_grad():
        gaussians = net(images, cameras)
        assert gaussians.num_gaussians == net.num_gaussians == 6 * net.splat_size**2
        fast = FastLGM(net, compile=False, graph=False)(images, cameras)
    torch.testing.assert_close(fast.packed(), gaussians.packed())
    top = gaussians.means[:, 4 * net.splat_size**2 : 5 * net.splat_size**2]
    assert top[..., 1].max() == pytest.approx(0.4, abs=0.05)
    assert "hull_view_poses" not in net.state_dict(), "weights fit networks with and without hull views"
    inputs = gaussians.means[:, : 4 * net.splat_size**2]
    anchors = pixel_anchors(images, cameras, (net.splat_size, net.splat_size), "hull")
    assert (inputs - anchors.means).abs().max() < 0.2, "inputs' own Gaussians start where they did"


def test_hull_views_are_of_the_hull():
    with pytest.raises(ValueError, match=r"draft_elevations_deg=\[90.0\] .* anchors='hull', not 'pixels'"):
        LGM(**TINY, anchors="pixels", draft_elevations_deg=[90.0])
    with pytest.raises(ValueError, match=r"-100.0"):
        LGM(**TINY, anchors="hull", draft_elevations_deg=[-100.0])


def test_cameras_in_double_precision():
    """As numpy makes them."""
    cameras = ring()
    images = ball(cameras)
    double = Cameras(cameras.c2w.double(), cameras.K_norm.double())
    single = pixel_anchors(images, cameras, (SIZE, SIZE), "hull")
    found = pixel_anchors(images, double, (SIZE, SIZE), "hull")
    assert ((found.means - single.means).abs() < 1e-5).float().mean() > 0.99
    for expected, mine in zip(drawn(cameras, images)[1:], drawn(double, images)[1:], strict=True):
        assert ((mine - expected).abs() < 1e-4).float().mean() > 0.99


def test_kernels_are_asked_for_the_hull_too():
    assert LGM(**TINY, anchors="hull", kernels="auto").fuse
    assert not LGM(**TINY, anchors="hull", kernels="plain").fuse


def parallel_ring() -> Cameras:
    return Cameras.orthographic(ring().c2w, 1.4)


def test_the_hull_of_orthographic_inputs():
    """From above and below through the same lens; points lie on the ball's top and bottom, and each input's
    own pixels on its surface."""
    cameras = parallel_ring()
    seen_from, images, points = drawn(cameras, ball(cameras))
    assert seen_from.is_orthographic.all()
    truth = ball(seen_from)
    is_hit, is_object = (x.amin(dim=2) < 0.98 for x in (images, truth))
    assert (is_hit & is_object).sum() >= 0.98 * is_object.sum()
    middle = images[:, :, :, SIZE // 2, SIZE // 2]
    torch.testing.assert_close(middle, torch.tensor([[RED, BLUE]]), atol=0.02, rtol=0)
    height = points[:, :, 1, SIZE // 2, SIZE // 2]
    torch.testing.assert_close(height, torch.tensor([[0.4, -0.4]]), atol=0.03, rtol=0)
    anchors = pixel_anchors(ball(cameras), cameras, (SIZE, SIZE), "hull").means.view(4, SIZE, SIZE, 3)
    radii = anchors[:, SIZE // 2, SIZE // 2].norm(dim=-1)  # the rays through the ball's middle
    torch.testing.assert_close(radii, torch.full((4,), 0.4), atol=0.03, rtol=0)


def test_a_network_takes_both_projections_at_once():
    """What it makes of an object does not depend on the projection of another one in the batch."""
    net = LGM(**TINY, anchors="hull", draft_elevations_deg=(90.0, -90.0)).eval()
    both = Cameras.concatenate([ring(), parallel_ring()], dim=0)
    images = torch.cat([ball(ring()), ball(parallel_ring())])
    with torch.no_grad():
        together = net(images, both)
        for index, cameras in enumerate((ring(), parallel_ring())):
            alone = net(images[index : index + 1], cameras)
            torch.testing.assert_close(together.means[index], alone.means[0], atol=1e-5, rtol=1e-4)
