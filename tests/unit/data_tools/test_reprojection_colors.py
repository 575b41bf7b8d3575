"""Colours tell exchanged views that silhouettes cannot; without evidence in them they fault nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_tools.reprojection import find_outlines, judge
from data_tools.reprojection import hull_points as hull
from data_tools.reprojection.colored import ColoredViews
from data_tools.reprojection.exchanged import find_exchanged
from data_tools.shared.shard_reader import read_samples
from data_tools.verify import command as verify
from lgm.cameras import Cameras, spiral_angles
from lgm.data.schema.sample import parse_cameras

SHARD = Path(verify.__file__).parents[2] / "lgm" / "assets" / "quickstart" / "val-000000.tar"


@pytest.fixture(scope="module")
def validation() -> list[tuple[str, np.ndarray, np.ndarray, float]]:
    """uid, thumbnails [V, 64, 64, 4], c2w and field of view of 15 bundled objects."""
    found = []
    for sample in read_samples(SHARD):
        record = parse_cameras(sample.files["cameras.json"], sample.uid)
        thumbnails = np.stack([sample.decoded(number).thumbnail for number in sample.images])
        found.append((sample.uid, thumbnails, record.c2w, record.fov_y_deg))
    return found


def dimmed(images: np.ndarray) -> np.ndarray:
    """Each image darker by a factor of its own, of 0.7 to 1."""
    factors = np.random.default_rng(0).uniform(0.7, 1, size=len(images))[:, None, None, None]
    return np.concatenate([images[..., :3] * factors, images[..., 3:]], axis=-1).astype(np.uint8)


COLOR_VARIATIONS = {
    "as they are": lambda p: p,
    "twelve views": lambda p: p[:12],
    "half the resolution": lambda p: p.reshape(-1, 32, 2, 32, 2, 4).mean((2, 4)).astype(np.uint8),
    "other exposures": dimmed,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COLOR_VARIATIONS)
def test_right_colors_are_no_fault(validation, name):
    for uid, thumbnails, c2w, fov_y_deg in validation:
        images = COLOR_VARIATIONS[name](thumbnails)
        is_whole = find_outlines(images[..., 3] / 255).is_whole
        colored = ColoredViews.of(images, is_whole, c2w[: len(images)], fov_y_deg)
        assert list(find_exchanged(colored)) == [], uid


def shaded_ball(shade, num_views: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Images [V, 64, 64, 4] and c2w; shade: unit normals [..., 3] in the world and a pose -> colours."""
    c2w = Cameras.orbit(*spiral_angles(num_views)).c2w.double().numpy()
    x = ((np.arange(64) + 0.5) / 32 - 1) * np.tan(np.radians(49.1 / 2))
    rays = np.stack([*np.meshgrid(x, x), np.ones((64, 64))], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    images = []
    for pose in c2w:
        center, directions = pose[:3, 3], rays @ pose[:3, :3].T
        along = -directions @ center
        inside = 0.5**2 - (center @ center - along**2)
        normals = (center + (along - np.sqrt(np.maximum(inside, 0)))[..., None] * directions) / 0.5
        colors = np.concatenate([shade(normals, pose), np.ones((64, 64, 1))], axis=-1)
        images.append(np.where(inside[..., None] > 0, colors, 0) * 255)
    return np.stack(images).astype(np.uint8), c2w


def exchanged(images: np.ndarray, one: int, two: int) -> np.ndarray:
    order = np.arange(len(images))
    order[[one, two]] = two, one
    return images[order]


SHADES = {
    "painted": (lambda n, pose: 0.5 + 0.4 * np.sin(3 * n), True),
    "a lamp that stands still": (lambda n, pose: np.repeat(0.5 + 0.4 * n[..., 2:], 3, axis=-1), True),
    "a lamp at the camera": (lambda n, pose: np.repeat(-0.9 * n @ pose[:3, 2:3], 3, axis=-1).clip(0), False),
    "a lamp beside the camera": (
        lambda n, pose: np.repeat(0.5 - 0.3 * n @ pose[:3, :3] @ [[0.5], [0.6], [0.6]], 3, axis=-1),
        False,
    ),
    "grey": (lambda n, pose: np.full((64, 64, 3), 0.5), False),
}


@pytest.mark.parametrize("name", SHADES)
def test_colors_of_a_ball(name):
    shade, can_tell = SHADES[name]
    images, c2w = shaded_ball(shade)
    outlines = find_outlines(images[..., 3] / 255)
    assert judge(outlines, c2w, 49.1, images).faults == ()
    for one, two in ((0, 2), (0, 1)):
        verdict = judge(outlines, c2w, 49.1, exchanged(images, one, two))
        found = [fault.split(" (")[0] for fault in verdict.faults]
        wanted = [
            f"view {view}: its image does not match its camera but that of view {other}"
            for view, other in ((one, two), (two, one))
        ]
        assert found == (wanted if can_tell else [])


MISTAKES = {
    "flipped y": lambda p, c: (p[:, ::-1], c),
    "mirrored": lambda p, c: (p[:, :, ::-1], c),
    "rolled": lambda p, c: (p, c * [-1, -1, 1, 1]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_painted_ball_is_turned_and_a_grey_one_is_not(name):
    for shade, wanted in (("painted", name), ("grey", None), ("a lamp at the camera", None)):
        images, c2w = MISTAKES[name](*shaded_ball(SHADES[shade][0]))
        verdict = judge(find_outlines(images[..., 3] / 255), c2w, 49.1, images)
        assert verdict.mistake == wanted
        assert bool(verdict.faults) == bool(wanted)
        assert name in verdict.undecided  # by silhouettes


@pytest.mark.parametrize(("num_views", "num_faults"), [(100, 2), (6, 0)])
def test_many_views_and_too_few(num_views, num_faults):
    """Of a hundred some are asked, the canonical ones among them; six stand too far apart."""
    images, c2w = shaded_ball(SHADES["painted"][0], num_views)
    is_whole = np.ones(num_views, dtype=bool)
    assert list(find_exchanged(ColoredViews.of(images, is_whole, c2w, 49.1))) == []
    changed = ColoredViews.of(exchanged(images, 0, 2), is_whole, c2w, 49.1)
    assert len(list(find_exchanged(changed))) == num_faults


def test_no_hull_is_carved_twice(monkeypatch):
    """One for the cameras as given, and one for each hypothesis that silhouettes leave open."""
    carved = []
    original = hull._carve
    monkeypatch.setattr(hull, "_carve", lambda *arguments: carved.append(1) or original(*arguments))
    images, c2w = shaded_ball(SHADES["grey"][0])
    verdict = judge(find_outlines(images[..., 3] / 255), c2w, 49.1, images)
    assert verdict.faults == () and {"flipped y", "mirrored", "rolled"} <= set(verdict.undecided)
    assert len(carved) == 1 + sum(not name.startswith("fov ") for name in verdict.undecided)
