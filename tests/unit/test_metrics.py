"""Values per image on pictures whose answer is known, and the baselines that need no training."""

import math
from statistics import fmean

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from lgm.cameras import Cameras
from lgm.metrics import (
    PSNR_CAP_DB,
    alpha_iou,
    gather_items,
    nearest_input,
    nearest_input_index,
    psnr,
    ssim,
    white,
)
from lgm.metrics.rows import BASELINES, ViewRow, per_object_table, summarise, unique
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
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match="one shape"):
        metric(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 8))


def test_ssim_names_a_picture_that_is_too_small():
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


def test_white():
    views = make_views(torch.rand(1, 2, 3, 8, 8), [0, 0], [0, 180])
    assert torch.equal(white(Batch(views, views, ("a",))), torch.ones(1, 2, 3, 8, 8))


def row(uid: str, view_id: int, value: float, baselines: dict | None = None) -> ViewRow:
    return ViewRow(uid, view_id, 0.0, 0.0, psnr=value, ssim=0.5, alpha_iou=1.0, baselines=baselines or {})


def test_the_overall_number_is_the_mean_over_pictures_not_over_objects():
    rows = [row("a", 0, 10.0), row("b", 0, 20.0), row("b", 1, 30.0)]
    summary = summarise(rows, "p", "no LPIPS", {"untrained": "none was given"})
    assert (summary["psnr"], summary["num_objects"], summary["num_views"]) == (20.0, 2, 3)
    assert summary["lpips"] is None and summary["lpips_reason"] == "no LPIPS"
    assert summary["baselines"]["untrained"] == {"psnr": None, "ssim": None, "reason": "none was given"}
    assert set(summary["baselines"]) == set(BASELINES)
    assert [line["psnr"] for line in per_object_table(rows)] == [10.0, fmean([20.0, 30.0])]


def test_a_baseline_that_lacks_a_picture_has_no_mean():
    rows = [row("a", 0, 1.0, {"white": {"psnr": 3.0, "ssim": 0.1}}), row("a", 1, 1.0)]
    assert summarise(rows, "p", None, {})["baselines"]["white"]["psnr"] is None


def test_a_picture_that_came_twice_counts_once():
    rows = [row("b", 1, 1.0), row("a", 0, 2.0), row("b", 1, 1.0), row("a", 2, 3.0)]
    assert [(r.uid, r.view_id) for r in unique(rows)] == [("a", 0), ("a", 2), ("b", 1)]


def test_one_process_gathers_its_own():
    assert gather_items([1, 2]) == [1, 2]
