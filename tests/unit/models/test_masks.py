"""Alphas beside images: the visual hull goes by masks, over any background."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lgm.cameras import Cameras, pixel_rays
from lgm.cli.build import build_eval_preparation
from lgm.gaussians import Gaussians
from lgm.metrics.baselines import nearest_input
from lgm.models import LGM, FastLGM
from lgm.models.anchors import pixel_anchors
from lgm.models.hull_views import hull_view_cameras, hull_view_poses, render_hull_views
from lgm.models.network import check_inputs
from lgm.rendering import TorchRenderer
from lgm.training.module import LGMModule
from lgm.types import Batch, Views
from tests.unit.cli.test_configs import composed

SIZE, RADIUS = 32, 0.4
TINY = dict(
    down_channels=(32, 32), down_attention=(False, False), mid_attention=False, up_channels=(32, 32),
    up_attention=(False, False), input_size=SIZE, anchors="hull", draft_elevations_deg=(90.0, -90.0),
)  # fmt: skip
WHITE, BLACK, GREEN = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.1, 0.7, 0.2)


def ring(num_views: int = 4) -> Cameras:
    return Cameras.orbit([0.0] * num_views, [360 / num_views * i for i in range(num_views)])[None]


def ball(cameras: Cameras, color, background) -> tuple[Tensor, Tensor]:
    """Images [1, V, 3, H, W] of a ball of one colour, and its alphas, hard."""
    origins, directions = pixel_rays(cameras, SIZE, SIZE)
    nearest = origins - (origins * directions).sum(dim=2, keepdim=True) * directions
    alphas = (nearest.norm(dim=2, keepdim=True) < RADIUS).float()
    color, background = (torch.tensor(x)[:, None, None] for x in (color, background))
    return color * alphas + background * (1 - alphas), alphas


def hull(images: Tensor, cameras: Cameras, alphas: Tensor | None = None) -> Tensor:
    return pixel_anchors(images, cameras, (SIZE, SIZE), "hull", alphas=alphas).means


@pytest.mark.parametrize("background", [WHITE, BLACK, GREEN])
@pytest.mark.parametrize("color", [WHITE, BLACK, GREEN])
def test_the_hull_is_the_same_whatever_the_object_and_the_background(color, background):
    cameras = ring()
    expected = hull(ball(cameras, BLACK, WHITE)[0], cameras)  # that white tells apart
    images, alphas = ball(cameras, color, background)
    assert torch.equal(hull(images, cameras, alphas), expected)
    assert torch.equal(hull(images, cameras), expected) == (background == WHITE and color != WHITE)


def test_faint_pixels_are_background_and_edges_the_objects():
    cameras = ring()
    images, alphas = ball(cameras, GREEN, WHITE)
    assert torch.equal(hull(images, cameras, (alphas + 0.01).clamp_max(1)), hull(images, cameras, alphas))
    assert torch.equal(hull(images, cameras, alphas * 0.1), hull(images, cameras, alphas))


def test_a_view_that_is_opaque_everywhere_brings_no_mask():
    """Photographs over white that nobody has cut out: white is their background, as without alphas."""
    cameras = ring()
    images, alphas = ball(cameras, GREEN, WHITE)
    expected = hull(images, cameras)
    assert torch.equal(hull(images, cameras, torch.ones_like(alphas)), expected)
    alphas[:, 2] = 1.0
    assert torch.equal(hull(images, cameras, alphas), expected)


@pytest.mark.parametrize("background", [WHITE, BLACK, GREEN])
def test_hull_views_lie_over_the_inputs_background(background):
    cameras = ring()
    images, alphas = ball(cameras, (0.5, 0.4, 0.3), background)
    seen_from = hull_view_cameras(cameras, hull_view_poses([90.0, -90.0]))
    drawn, _ = render_hull_views(images, cameras, seen_from, (SIZE, SIZE), alphas=alphas)
    torch.testing.assert_close(drawn[0, :, :, 0, 0], torch.tensor([background] * 2), rtol=0, atol=1e-5)
    middle = drawn[0, :, :, SIZE // 2, SIZE // 2]
    torch.testing.assert_close(middle, torch.tensor([(0.5, 0.4, 0.3)] * 2), rtol=0, atol=0.02)


def test_over_white_masks_change_only_what_white_cannot_tell():
    torch.manual_seed(0)
    net, cameras = LGM(**TINY).eval(), ring()
    with torch.no_grad():
        for color, is_same in ((GREEN, True), (WHITE, False)):
            images, alphas = ball(cameras, color, WHITE)
            without, masked = net(images, cameras).packed(), net(images, cameras, alphas).packed()
            assert torch.equal(without, masked) == is_same
            fast = FastLGM(net, compile=False, graph=False)(images, cameras, alphas)
            assert torch.equal(fast.packed(), masked)


def test_alphas_that_do_not_fit_are_named():
    cameras = ring()
    images, alphas = ball(cameras, GREEN, WHITE)
    check_inputs(images, cameras, alphas)
    for wrong in (alphas[:, :2], alphas.expand(-1, -1, 3, -1, -1), alphas[..., :16], alphas.byte()):
        with pytest.raises(ValueError, match=r"need alphas of shape \(1, 4, 1, 32, 32\) in 0..1, got"):
            check_inputs(images, cameras, wrong)


class Listener(nn.Module):
    """Notes what it is called with."""

    def forward(self, *inputs):
        self.inputs = inputs
        return Gaussians.from_packed(torch.ones(1, 1, 14))


def test_training_and_evaluation_give_the_network_its_alphas():
    cameras = ring()
    images, alphas = ball(cameras, GREEN, WHITE)
    views = Views(images, alphas, cameras, torch.arange(4)[None])
    net = Listener()
    module = LGMModule(net, TorchRenderer(), preparation=SimpleNamespace())
    batch = Batch(views, views, ("a",), background=torch.ones(1, 3))
    module.predict(batch)
    assert net.inputs[2] is alphas
    module(batch)
    assert net.inputs[2] is alphas


def test_a_protocol_over_another_background_leaves_the_inputs_as_the_network_was_trained():
    """A network that was trained over white, measured over black."""
    cfg = composed("model=nano", "protocol.background=[0,0,0]")
    cameras = ring()
    images, alphas = (255 * x for x in ball(cameras, GREEN, GREEN))
    views = Views(images.byte(), alphas.byte(), cameras, torch.arange(4)[None])
    preparation = build_eval_preparation(cfg, SimpleNamespace(input_size=SIZE))
    batch = preparation(Batch(views, views, ("a",)))
    assert batch.input.images[0, 0, :, 0, 0].tolist() == [1.0] * 3
    assert batch.target.images[0, 0, :, 0, 0].tolist() == [0.0] * 3
    copied = nearest_input(batch)[0]  # a baseline: over what the targets are over
    assert copied.shape[-1] == cfg.protocol.target_size and copied[0, :, 0, 0].abs().max() < 1e-6
    middle = copied[0, :, copied.shape[-2] // 2, copied.shape[-1] // 2]
    torch.testing.assert_close(middle, torch.tensor(GREEN), rtol=0, atol=0.01)
