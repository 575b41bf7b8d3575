import pytest
import torch

from lgm.cameras import Cameras
from lgm.losses import (
    AlphaMSE,
    CompositeLoss,
    LossTerm,
    PhotometricL1,
    PhotometricMSE,
    StructuralDissimilarity,
)
from lgm.metrics.image import ssim
from lgm.types import Prediction, RenderOutput, Views
from tests.predictions import predicted


def pair(color_error: float, alpha_error: float) -> Prediction:
    images, alphas = torch.full((1, 2, 3, 4, 4), 0.5), torch.full((1, 2, 1, 4, 4), 0.5)
    cameras = Cameras.orbit([0.0, 0.0], [0.0, 90.0])[None]
    target = Views(images, alphas, cameras, torch.zeros(1, 2, dtype=torch.long))
    render = RenderOutput(images + color_error, alphas + alpha_error, torch.zeros_like(alphas))
    return predicted(render, target)


def test_mean_squared_errors():
    prediction = pair(0.1, 0.2)
    assert PhotometricMSE()(prediction).item() == pytest.approx(0.01, rel=1e-5)
    assert AlphaMSE()(prediction).item() == pytest.approx(0.04, rel=1e-5)


def random_pair(size: int = 24) -> Prediction:
    generator = torch.Generator().manual_seed(0)
    images, drawn = torch.rand(2, 1, 2, 3, size, size, generator=generator)
    alphas = torch.ones(1, 2, 1, size, size)
    cameras = Cameras.orbit([0.0, 0.0], [0.0, 90.0])[None]
    target = Views(images, alphas, cameras, torch.zeros(1, 2, dtype=torch.long))
    return predicted(RenderOutput(drawn, alphas, torch.zeros_like(alphas)), target)


def test_absolute_errors():
    prediction = random_pair()
    difference = prediction.render.images - prediction.batch.target.images
    assert PhotometricL1()(prediction).item() == pytest.approx(difference.abs().mean().item(), rel=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_structural_dissimilarity_is_what_the_metric_leaves_of_one(autocast):
    prediction = random_pair()
    target, render = prediction.batch.target, prediction.render
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = StructuralDissimilarity()(prediction)
    assert loss.item() == pytest.approx(1 - ssim(render.images, target.images).mean().item(), abs=1e-5)
    same = predicted(RenderOutput(target.images, target.alphas, render.depths), target)
    assert StructuralDissimilarity()(same).item() == pytest.approx(0, abs=1e-6)


def test_a_step_against_its_gradient_makes_images_more_alike():
    prediction = random_pair()
    target, render = prediction.batch.target, prediction.render
    leaf = render.images.clone().requires_grad_()
    StructuralDissimilarity()(predicted(RenderOutput(leaf, render.alphas, render.depths), target)).backward()
    moved = leaf.detach() - 20 * leaf.grad
    assert leaf.grad.isfinite().all()
    assert ssim(moved, target.images).mean() > ssim(render.images, target.images).mean() + 0.01
    with pytest.raises(ValueError, match="SSIM needs images of at least 6 pixels a side, got 4 × 4"):
        StructuralDissimilarity()(pair(0.1, 0.2))


def test_decibels_are_means_over_images():
    prediction = pair(0.1, 0.2)
    target, depths = prediction.batch.target, prediction.render.depths
    prediction.render.images[0, 1] += 0.9  # off by 1
    found = PhotometricMSE(in_decibels=True)(prediction)
    assert found.item() == pytest.approx((-20 + 0) / 2, abs=0.05)  # of 1e-2 and 1
    assert AlphaMSE(in_decibels=True)(prediction).item() == pytest.approx(-13.97, abs=0.02)
    exact = PhotometricMSE(in_decibels=True)(
        predicted(RenderOutput(target.images, target.alphas, depths), target)
    )
    assert exact.item() == pytest.approx(-40)


def test_in_decibels_a_image_that_is_almost_right_pulls_as_one_that_is_wrong():
    prediction = pair(0.0, 0.0)
    render, target = prediction.render, prediction.batch.target
    images = target.images + torch.tensor([0.05, 0.5]).view(1, 2, 1, 1, 1)
    pulls = []
    for in_decibels in (False, True):
        leaf = images.clone().requires_grad_()
        drawn = RenderOutput(leaf, render.alphas, render.depths)
        PhotometricMSE(in_decibels)(predicted(drawn, target)).backward()
        # Of a step along the error, relative to it.
        pulls.append((leaf.grad * (images - target.images)).sum(dim=(2, 3, 4))[0])
    assert pulls[0][1] / pulls[0][0] == pytest.approx(100, rel=1e-3)
    assert pulls[1][1] / pulls[1][0] == pytest.approx(1, rel=0.05)


def test_weights_add_up_and_the_log_is_unweighted():
    loss = CompositeLoss({"rgb": LossTerm(PhotometricMSE(), 2.0), "alpha": LossTerm(AlphaMSE(), 0.5)})
    total, terms = loss(pair(0.1, 0.2), step=0)
    assert total.item() == pytest.approx(2 * 0.01 + 0.5 * 0.04, rel=1e-5)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {"rgb": 0.01, "alpha": 0.04}, rel=1e-4
    )


def test_a_term_counts_from_its_start_on():
    loss = CompositeLoss({"rgb": LossTerm(PhotometricMSE()), "alpha": LossTerm(AlphaMSE(), start_step=10)})
    prediction = pair(0.1, 0.2)
    assert set(loss(prediction, step=9)[1]) == {"rgb"}
    assert set(loss(prediction, step=10)[1]) == {"rgb", "alpha"}
    total, terms = loss(prediction)  # outside of training there is no step: the whole loss
    assert set(terms) == {"rgb", "alpha"} and total == loss(prediction, step=10)[0]


def test_nothing_to_minimise_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        CompositeLoss({})
    loss = CompositeLoss({"rgb": LossTerm(PhotometricMSE(), start_step=5)})
    with pytest.raises(ValueError, match="no loss term is active at step 0"):
        loss(pair(0.1, 0.2), step=0)
    with pytest.raises(ValueError, match="no loss term is active; one needs"):
        CompositeLoss({"rgb": LossTerm(PhotometricMSE(), 0.0)})(pair(0.1, 0.2))
    with pytest.raises(ValueError, match="weight=-1"):
        LossTerm(PhotometricMSE(), -1)
