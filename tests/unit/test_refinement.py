"""Test-time refinement: nearer to the inputs, scene by scene, and nothing else."""

from dataclasses import fields, replace

import pytest
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.refinement import Refinement
from lgm.rendering import TorchRenderer
from lgm.rendering.drawing import draw
from lgm.types import Views

SIZE = 12
RENDERER = TorchRenderer()


def cloud(num_scenes: int) -> Gaussians:
    shape = (num_scenes, 30)
    return Gaussians(
        means=torch.randn(*shape, 3) * 0.15,
        quats=torch.nn.functional.normalize(torch.randn(*shape, 4), dim=-1),
        scales=torch.rand(*shape, 3) * 0.08 + 0.04,
        opacities=torch.rand(shape) * 0.8 + 0.1,
        colors=torch.rand(*shape, 3),
    )


def views_of(gaussians: Gaussians) -> tuple[Views, torch.Tensor]:
    """What the Gaussians look like from four sides, over white."""
    cameras = Cameras.orbit([0.0] * 4, [0.0, 90.0, 180.0, 270.0])
    cameras = Cameras(
        *(x.expand(gaussians.num_scenes, *x.shape).contiguous() for x in (cameras.c2w, cameras.K_norm))
    )
    white = torch.ones(gaussians.num_scenes, 3)
    empty = torch.zeros(gaussians.num_scenes, 4, 3, SIZE, SIZE)
    ids = torch.arange(4).expand(gaussians.num_scenes, 4)
    views = Views(empty, empty[:, :, :1], cameras, ids)
    render = draw(RENDERER, gaussians, views, white)
    return replace(views, images=render.images, alphas=render.alphas), white


def error(gaussians: Gaussians, views: Views, background: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of each scene [B]."""
    render = draw(RENDERER, gaussians, views, background)
    return (render.images - views.images).abs().mean(dim=(1, 2, 3, 4))


def equal(a: Gaussians, b: Gaussians, rtol: float = 0.0, atol: float = 0.0) -> None:
    for field in fields(Gaussians):
        torch.testing.assert_close(getattr(a, field.name), getattr(b, field.name), rtol=rtol, atol=atol)


def off(gaussians: Gaussians) -> Gaussians:
    """As a network that is a little wrong would have them."""
    return replace(
        gaussians,
        means=gaussians.means + 0.004 * torch.randn_like(gaussians.means),
        colors=(gaussians.colors + 0.05 * torch.randn_like(gaussians.colors)).clamp(0, 1),
    )


def test_the_inputs_come_nearer_under_inference_mode():
    truth = cloud(2)
    views, background = views_of(truth)
    with torch.inference_mode():
        start = off(truth)
        refined = Refinement(steps=8)(start, views, background, RENDERER)
        assert (error(refined, views, background) < 0.9 * error(start, views, background)).all()
    assert not any(getattr(refined, field.name).requires_grad for field in fields(Gaussians))
    assert refined.colors.min() >= 0 and refined.colors.max() <= 1
    torch.testing.assert_close(refined.quats.norm(dim=-1), torch.ones(2, 30))


def test_a_scene_does_not_depend_on_the_others():
    truth = cloud(3)
    views, background = views_of(truth)
    start, refine = off(truth), Refinement(steps=3)
    together = refine(start, views, background, RENDERER)
    equal(refine(start, views, background, RENDERER, images_per_call=8), together, atol=1e-6)  # two, and one


def test_no_steps_and_no_rates_change_nothing():
    truth = cloud(1)
    views, background = views_of(truth)
    start = off(truth)
    assert Refinement()(start, views, background, RENDERER) is start
    still = Refinement(steps=2, means=0, scales=0, quats=0, opacities=0, colors=0)
    equal(still(start, views, background, RENDERER), start)
    moved = replace(still, means=1e-3)(start, views, background, RENDERER)
    equal(replace(moved, means=start.means), start)
    assert not torch.equal(moved.means, start.means)


def test_the_prior_holds_gaussians_to_the_prediction():
    truth = cloud(1)
    views, background = views_of(truth)
    start = off(truth)
    free, held = (
        Refinement(steps=6, prior_weight=weight)(start, views, background, RENDERER) for weight in (0, 1)
    )
    assert (held.means - start.means).norm() < 0.5 * (free.means - start.means).norm()


@pytest.mark.parametrize(
    "options",
    [{"steps": -1}, {"steps": 1.5}, {"steps": True}, {"means": -1e-3}, {"prior_weight": float("nan")}],
)
def test_options_that_make_no_sense_are_refused(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"refine.{name}="):
        Refinement(**options)
