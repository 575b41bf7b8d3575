"""The fused entry into the visual hull against the plain one, through Triton's interpreter."""

import pytest
import torch

from lgm.cameras import Cameras, nearest_to_origin, pixel_rays
from lgm.kernels import fused_enter
from lgm.models.visual_hull import HALVINGS, REACH, SAMPLES, Silhouettes, enter
from tests.interpreter import needs_interpreter

needs_interpreter()


def scene(size, elevations, azimuths, num_scenes=2):
    """Discs of several sizes off the middle, so that hulls have edges everywhere, over white."""
    ticks = (torch.arange(size) + 0.5) / size - 0.5
    images = torch.ones(num_scenes, len(azimuths), 3, size, size)
    for index, image in enumerate(images.flatten(0, 1)):
        inside = (ticks[None] - 0.03 * index) ** 2 + (ticks[:, None] + 0.02 * index) ** 2
        image[:, inside < (0.15 + 0.02 * index) ** 2] = torch.rand(3, 1)
    cameras = Cameras.orbit(elevations, azimuths)
    return images, Cameras(*(v[None].expand(num_scenes, -1, -1, -1) for v in (cameras.c2w, cameras.K_norm)))


def rays(cameras, height, width):
    return nearest_to_origin(cameras, height, width).flatten(3), pixel_rays(cameras, height, width)[
        1
    ].flatten(3)


def both(middles, directions, silhouettes, spare_own):
    along = torch.linspace(-REACH, REACH, SAMPLES)
    ours = fused_enter(
        middles, directions, silhouettes.background, silhouettes.projections, along, HALVINGS, spare_own
    )
    return ours, enter(middles, directions, silhouettes, spare_own)


def check(ours, theirs):
    """Equal, but for rays where a bilinear value is a half but for rounding."""
    same = (ours[1] == theirs[1]) & (ours[2] == theirs[2]) & ((ours[0] - theirs[0]).abs() < 1e-6)
    assert same.float().mean() > 0.998
    assert ours[1].any() and not ours[1].all()


@pytest.mark.parametrize("size", [(12, 12), (7, 10)])
def test_inputs_are_judged_by_the_others(size):
    images, cameras = scene(24, [0.0, 20, 0, -10], [0.0, 90, 180, 270])
    ours, theirs = both(*rays(cameras, *size), Silhouettes.of(images, cameras), spare_own=True)
    check(ours, theirs)


@pytest.mark.parametrize("num_views", [1, 3])
def test_further_views_are_judged_by_all(num_views):
    azimuths = [0.0, 120, 240][:num_views]
    images, cameras = scene(20, [0.0] * num_views, azimuths)
    _, others = scene(20, [90.0, -90.0], [0.0, 0.0])
    ours, theirs = both(*rays(others, 9, 9), Silhouettes.of(images, cameras), spare_own=False)
    check(ours, theirs)


@pytest.mark.slow
def test_orthographic_inputs_and_rays():
    images, cameras = scene(20, [0.0, 20, -10], [0.0, 120, 240])
    parallel = Cameras.orthographic(cameras.c2w, 1.4)
    ours, theirs = both(*rays(parallel, 9, 9), Silhouettes.of(images, parallel), spare_own=True)
    check(ours, theirs)


def test_images_that_are_not_square():
    images, cameras = scene(24, [0.0] * 4, [0.0, 90, 180, 270])
    ours, theirs = both(*rays(cameras, 6, 6), Silhouettes.of(images[..., 4:20, :], cameras), spare_own=True)
    check(ours, theirs)
