"""Values per image on images whose answer is known, and the baselines that need no training."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from lgm.cameras import Cameras
from lgm.metrics import (
    PSNR_CAP_DB,
    alpha_iou,
    depth_error,
    gather_items,
    lpips,
    nearest_input,
    nearest_input_index,
    psnr,
    ssim,
    ssims,
)
from lgm.types import Batch, Views


def make_views(images: torch.Tensor, elevation_deg: list[float], azimuth_deg: list[float]) -> Views:
    batch_size, num_views = images.shape[:2]
    orbit = Cameras.orbit(elevation_deg, azimuth_deg)
    cameras = Cameras(
        orbit.c2w.expand(batch_size, -1, -1, -1).clone(), orbit.K_norm.expand(batch_size, -1, -1, -1).clone()
    )
    return Views(images, images[:, :, :1], cameras, torch.arange(num_views).expand(batch_size, -1))


@pytest.mark.parametrize(("difference", "expected_db"), [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0)])
def test_psnr_of_a_constant_difference(difference, expected_db):
    targets = torch.zeros(2, 3, 3, 8, 8)
    values = psnr(targets + difference, targets)
    assert values.shape == (2, 3)
    torch.testing.assert_close(values, torch.full((2, 3), expected_db), atol=1e-4, rtol=0)


def test_psnr_is_per_image_capped_and_clamped():
    targets = torch.rand(4, 3, 8, 8) * 0.5 + 0.5
    images = targets.clone()
    images[1] = 3.0  # measured as the white that a screen shows
    values = psnr(images, targets)
    assert values[0] == PSNR_CAP_DB
    assert values[1] == psnr(torch.ones(3, 8, 8), targets[1])
    assert math.isclose(values[1], -10 * math.log10((1 - targets[1]).square().mean()), abs_tol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_ssim_is_torchmetrics_image_by_image(size):
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.rand(2, 40, 2, 3, *size, generator=generator)
    values = ssim(images, targets)  # 80 images: more than one chunk
    for scene, view in [(0, 0), (31, 1), (32, 0), (39, 1)]:
        expected = structural_similarity_index_measure(
            images[scene, view][None], targets[scene, view][None], data_range=1.0
        )
        torch.testing.assert_close(values[scene, view], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_ssim_is_scikit_images_where_the_border_is_cropped(size):
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.rand(2, 3, 3, *size, generator=generator)
    expected = [
        structural_similarity(
            x.numpy(), y.numpy(), channel_axis=0, data_range=1.0,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for x, y in zip(images, targets, strict=True)
    ]  # fmt: skip
    torch.testing.assert_close(
        ssim(images, targets, "cropped"), torch.tensor(expected).float(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("x", "y"), [(0.0, 1.0), (0.2, 0.7)])
def test_ssim_of_two_plain_images_is_the_luminance_term(x, y):
    expected = (2 * x * y + 1e-4) / (x**2 + y**2 + 1e-4)
    value = ssim(torch.full((1, 3, 20, 20), x), torch.full((1, 3, 20, 20), y))
    assert value.item() == pytest.approx(expected, abs=1e-4)  # float32: variances of 0 are not quite 0


def test_several_predictions_at_once_are_each_on_its_own():
    generator = torch.Generator().manual_seed(0)
    images, others, targets = torch.rand(3, 2, 3, 3, 16, 16, generator=generator)
    first, plain, second = ssims([images, 1.0, others], targets)
    torch.testing.assert_close(first, ssim(images, targets), atol=1e-6, rtol=0)
    torch.testing.assert_close(second, ssim(others, targets), atol=1e-6, rtol=0)
    torch.testing.assert_close(plain, ssim(torch.ones_like(targets), targets), atol=1e-6, rtol=0)


def test_lpips_convolves_alike_whatever_a_run_allows_itself():
    seen = []

    def network(images, targets):
        seen.append((torch.backends.cudnn.conv.fp32_precision, torch.is_autocast_enabled("cpu")))
        return torch.zeros(len(images))

    before = torch.backends.cudnn.conv.fp32_precision
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lpips(network, torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16))
    assert seen == [("tf32", False)]
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_a_lower_precision_of_products_does_not_reach_ssim():
    images, targets = torch.rand(2, 1, 3, 16, 16)
    expected = ssim(images, targets)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(ssim(images, targets), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_ssim_of_identical_images_is_one():
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(ssim(images, images), torch.ones(2), atol=1e-5, rtol=0)


def test_metrics_run_in_float32_under_autocast():
    images, targets = torch.rand(2, 4, 3, 16, 16)
    expected = psnr(images, targets), ssim(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = psnr(images, targets), ssim(images, targets)
    assert all(value.dtype == torch.float32 for value in values)
    torch.testing.assert_close(values, expected, atol=0, rtol=0)


def test_alpha_iou():
    ours, theirs = torch.zeros(2, 3, 1, 4, 4)
    ours[0, :, :2], theirs[0, :, 1:3] = 1, 1  # two rows each, one in common
    ours[1], theirs[1] = 0.49, 0.9  # below the threshold: no overlap
    torch.testing.assert_close(alpha_iou(ours, theirs), torch.tensor([1 / 3, 0.0, 1.0]))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_must_agree(metric, any_shape):
    with pytest.raises(ValueError, match="one shape"):
        metric(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 8))


def test_ssim_names_a_image_that_is_too_small():
    with pytest.raises(ValueError, match="at least 6x6"):
        ssim(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))


def test_nearest_input_takes_the_view_that_looks_the_same_way():
    colours = torch.tensor([0.0, 0.25, 0.5, 0.75]).view(1, 4, 1, 1, 1)
    inputs = make_views(colours.expand(2, -1, 3, 8, 8).contiguous(), [0] * 4, [0, 90, 180, 270])
    # The last two lie halfway between views: the first of the equally near ones wins.
    azimuths = [10.0, 100.0, 170.0, 300.0, 350.0, 45.0, 0.0]
    elevations = [0.0, 30.0, -60.0, 10.0, 80.0, 0.0, 90.0]
    targets = make_views(torch.rand(2, 7, 3, 16, 12), elevations, azimuths)
    batch = Batch(inputs, targets, ("a", "b"))
    expected = torch.tensor([0, 1, 2, 3, 0, 0, 0])
    assert torch.equal(nearest_input_index(inputs.cameras, targets.cameras), expected.expand(2, -1))
    images = nearest_input(batch)
    assert images.shape == targets.images.shape
    torch.testing.assert_close(images[1, :, 0, 3, 3], expected / 4)


def test_nearest_input_is_a_copy():
    views = make_views(torch.rand(1, 2, 3, 8, 8), [0, 0], [0, 180])
    images = nearest_input(Batch(views, views, ("a",)))
    assert torch.equal(images, views.images)
    images.zero_()
    assert views.images.sum() > 0


def test_depth_error_counts_where_both_silhouettes_are():
    alphas, depths = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    alphas[0, :, :2], depths[0, :, :2] = 0.8, 0.8 * 1.25  # a renderer's depth is weighted by alpha
    targets, target_alphas = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    targets[0, :, 1:], target_alphas[0, :, 1:] = 1.5, 1.0
    targets[0, 0, 1, 0] = 0.0  # covered, but of unknown depth
    values = depth_error(depths, alphas, targets, target_alphas)
    assert values[0].item() == pytest.approx(0.25, abs=1e-6)
    assert values[1].isnan()


def test_one_process_gathers_its_own():
    assert gather_items([1, 2]) == [1, 2]
