"""Augmentation: what it draws, whom it leaves alone, and that nobody else's company changes it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lgm.cameras import Cameras, canonicalise, plucker_rays, turn_about_origin
from lgm.gaussians import Gaussians
from lgm.preparation.augment import (
    Augmentation,
    CameraJitter,
    Erosion,
    GridDistortion,
    RandomBackground,
    source_coordinates,
)
from lgm.preparation.draws import uniforms
from lgm.preparation.prepare import Preparation
from lgm.rendering import TorchRenderer
from lgm.training.module import LGMModule
from lgm.types import Batch, Views

MANY = tuple(range(10_000, 14_000))
RELEASED = Augmentation(
    GridDistortion(0.5, (8, 16), 0.5), CameraJitter(0.5, 18.0, 9.0), RandomBackground(0.0)
)
ALWAYS = Augmentation(GridDistortion(1.0, (8, 16), 0.5), CameraJitter(1.0, 18.0, 9.0), RandomBackground(1.0))


def views(num_objects: int, elevation_deg: list[float], seed: int, size: int = 24) -> Views:
    generator = torch.Generator().manual_seed(seed)
    num_views = len(elevation_deg)
    cameras = Cameras.orbit(elevation_deg, [90.0 * i + 5 * (i > 3) for i in range(num_views)])
    shape = (num_objects, num_views, 1, size, size)
    return Views(
        images=torch.randint(0, 256, (*shape[:2], 3, size, size), dtype=torch.uint8, generator=generator),
        alphas=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        cameras=Cameras(*(x.expand(num_objects, *x.shape) for x in (cameras.c2w, cameras.K_norm))),
        view_ids=torch.arange(num_views).expand(num_objects, -1),
    )


def batch(num_objects: int = 3, elevation_deg: tuple[float, ...] = (0, 0, 0, 0)) -> Batch:
    return Batch(
        input=views(num_objects, list(elevation_deg), seed=1),
        target=views(num_objects, [0, 0, 0, 0, 30, -50], seed=2),
        uids=tuple(f"object-{i}" for i in range(num_objects)),
        seeds=tuple(range(50, 50 + num_objects)),
    )


def prepared(augmentation: Augmentation | None, raw: Batch | None = None, training: bool = True) -> Batch:
    preparation = Preparation(input_size=16, target_size=24, augmentation=augmentation)
    return preparation(batch() if raw is None else raw, training=training)


def differing(a: Batch, b: Batch) -> set[str]:
    """Which parts of two prepared batches are not the same to the last bit."""
    parts = {
        f"{role}.{name}": [get(getattr(x, role)) for x in (a, b)]
        for role in ("input", "target")
        for name, get in {
            "images": lambda v: v.images,
            "alphas": lambda v: v.alphas,
            "c2w": lambda v: v.cameras.c2w,
            "K_norm": lambda v: v.cameras.K_norm,
        }.items()
    }
    parts["background"] = [a.background, b.background]
    return {name for name, (x, y) in parts.items() if not torch.equal(x, y)}


def assert_even(numbers: torch.Tensor, low: float, high: float) -> None:
    """Kolmogorov and Smirnov's test of a uniform distribution at 1 %."""
    numbers = (numbers.double().flatten().sort().values - low) / (high - low)
    assert numbers.min() >= 0 and numbers.max() <= 1
    steps = torch.arange(1, len(numbers) + 1) / len(numbers)
    assert (steps - numbers).abs().max() < 1.63 / len(numbers) ** 0.5


def assert_share(applied: torch.Tensor, probability: float) -> None:
    deviation = (probability * (1 - probability) / len(applied)) ** 0.5
    assert abs(applied.float().mean().item() - probability) < 3 * deviation


# -- what is drawn -----------------------------------------------------------------------------------


def test_a_grid_has_eight_to_sixteen_cells_whose_lines_move_by_a_quarter_of_a_cell_at_most():
    applied, lines, num_cells = RELEASED.grid_distortion.draw(MANY, num_views=3)
    assert_share(applied, 0.5)
    counts = torch.bincount(num_cells.int(), minlength=18)
    assert counts[:8].sum() == counts[17:].sum() == 0
    assert (counts[8:17] - len(MANY) / 9).abs().max() < 4 * (len(MANY) / 9) ** 0.5
    for cells in (8, 16):
        moved = lines[num_cells == cells][..., : cells + 1] - torch.arange(cells + 1)
        assert (moved[..., [0, -1]] == 0).all()  # the image's border
        assert_even(moved[..., 1:-1], -0.25, 0.25)
    # Every view and both axes have lines of their own.
    flat = lines[..., 1].flatten(1)
    assert all(len(set(row.tolist())) == 6 for row in flat)


def test_jitter_is_even_within_a_tenth_and_a_twentieth_of_pi():
    applied, azimuth_deg, elevation_deg = RELEASED.camera_jitter.draw(MANY, num_views=3)
    assert_share(applied, 0.5)
    assert_even(azimuth_deg, -18, 18)
    assert_even(elevation_deg, -9, 9)
    both = torch.stack([azimuth_deg.flatten(), elevation_deg.flatten()])
    assert torch.corrcoef(both)[0, 1].abs() < 0.03


def test_one_of_both_says_nothing_about_the_other():
    grid, jitter = (part.draw(MANY, 3)[0] for part in (RELEASED.grid_distortion, RELEASED.camera_jitter))
    assert_share(grid & jitter, 0.25)


def test_backgrounds_are_even_over_the_cube():
    white = torch.ones(len(MANY), 3)
    drawn = RandomBackground(0.3)(white, MANY)
    changed = (drawn != white).any(dim=1)
    assert_share(changed, 0.3)
    for channel in drawn[changed].T:
        assert_even(channel, 0, 1)


def test_who_is_augmented_is_what_the_images_and_poses_show():
    seeds = MANY[:64]
    images = torch.rand(64, 4, 4, 16, 16)
    bent = RELEASED.grid_distortion(images, seeds)
    applied = RELEASED.grid_distortion.draw(seeds, 3)[0]
    changed = (bent != images).flatten(2).any(dim=2)  # [B, V]
    assert torch.equal(changed, applied[:, None] & torch.tensor([False, True, True, True]))
    c2w = Cameras.orbit([0] * 4, [0, 90, 180, 270]).c2w.expand(64, -1, -1, -1)
    turned = RELEASED.camera_jitter(c2w, seeds)
    applied = RELEASED.camera_jitter.draw(seeds, 3)[0]
    changed = (turned != c2w).flatten(2).any(dim=2)
    assert torch.equal(changed, applied[:, None] & torch.tensor([False, True, True, True]))


# -- what stays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nothing",
    [
        Augmentation(),
        Augmentation(GridDistortion(1.0, (8, 16), 0.0), CameraJitter(1.0, 0.0, 0.0), RandomBackground(0.0)),
        Augmentation(GridDistortion(0.0, (8, 16), 0.5), CameraJitter(0.0, 18.0, 9.0), RandomBackground(0.0)),
    ],
    ids=["none", "strength 0", "probability 0"],
)
def test_nothing_changes_nothing_to_the_last_bit(nothing):
    assert differing(prepared(nothing), prepared(None)) == set()


def test_validation_and_evaluation_are_never_augmented():
    assert differing(prepared(ALWAYS, training=False), prepared(None)) == set()


def test_only_later_inputs_change():
    changed, plain = prepared(ALWAYS), prepared(None)
    assert differing(changed, plain) == {
        "input.images",
        "input.alphas",
        "input.c2w",
        "target.images",
        "background",
    }
    assert differing(_first_inputs(changed), _first_inputs(plain)) == {"target.images", "background"}
    colorless = replace(ALWAYS, random_background=None)
    assert differing(prepared(colorless), plain) == {"input.images", "input.alphas", "input.c2w"}
    for index in (1, 2, 3):
        assert not torch.equal(changed.input.images[:, index], plain.input.images[:, index])


def _first_inputs(full: Batch) -> Batch:
    first = full.input
    return replace(
        full,
        input=replace(
            first,
            images=first.images[:, :1],
            alphas=first.alphas[:, :1],
            cameras=first.cameras[:, :1],
            view_ids=first.view_ids[:, :1],
        ),
    )


def test_a_single_input_view_has_no_later_ones():
    raw = _first_inputs(batch())
    assert differing(prepared(replace(ALWAYS, random_background=None), raw), prepared(None, raw)) == set()


def test_objects_do_not_depend_on_their_company():
    """One at a time, and in another order: the same to the last bit."""
    whole = prepared(ALWAYS)
    for i in range(3):
        alone = prepared(ALWAYS, _pick(batch(), [i]))
        assert differing(alone, _pick(whole, [i])) == set()
    assert differing(prepared(ALWAYS, _pick(batch(), [2, 0, 1])), _pick(whole, [2, 0, 1])) == set()


def _pick(full: Batch, objects: list[int]) -> Batch:
    def pick(x: Views) -> Views:
        return Views(x.images[objects], x.alphas[objects], x.cameras[objects], x.view_ids[objects])

    return Batch(
        pick(full.input),
        pick(full.target),
        tuple(full.uids[i] for i in objects),
        tuple(full.seeds[i] for i in objects),
        None if full.background is None else full.background[objects],
    )


def test_numbers_are_a_function_of_seed_and_stream():
    assert torch.equal(uniforms([3, 4], 1, 5, "cpu")[1], uniforms([4], 1, 9, "cpu")[0, :5])
    assert not torch.equal(uniforms([3], 0, 5, "cpu"), uniforms([3], 1, 5, "cpu"))


# -- the grid ----------------------------------------------------------------------------------------


def test_source_coordinates_are_numpys_interpolation():
    """The slow twin: np.interp from where lines came to lie to where they were."""
    _, lines, num_cells = ALWAYS.grid_distortion.draw(MANY[:20], num_views=3)
    found = source_coordinates(lines[:, :, 0], num_cells, 37)
    centers = (np.arange(37) + 0.5) / 37
    for b, cells in enumerate(num_cells.int().tolist()):
        for v in range(3):
            knots = lines[b, v, 0, : cells + 1].double().numpy() / cells
            expected = np.interp(centers, knots, np.arange(cells + 1) / cells)
            assert np.abs(found[b, v].numpy() - expected).max() < 1e-6


def test_a_distorted_ramp_shows_where_its_pixels_came_from():
    """Colours that tell positions: they stay in order, cover the image, and move a quarter cell at most."""
    size = 128
    ramp = ((torch.arange(size) + 0.5) / size).expand(1, 4, 1, size, size)
    images = torch.cat([ramp, ramp.transpose(-1, -2)], dim=2)  # x in channel 0, y in channel 1
    for seed in range(20):
        x, y = GridDistortion(1.0, (8, 16), 0.5)(images, [seed])[0, 2].unbind(0)
        assert torch.allclose(x, x[:1].expand_as(x), atol=1e-6)  # lines stay straight …
        assert torch.allclose(y, y[:, :1].expand_as(y), atol=1e-6)
        for found, before in ((x[0], ramp[0, 0, 0, 0]), (y[:, 0], ramp[0, 0, 0, 0])):
            assert (found.diff() > 0).all()  # … none cross …
            assert (found - before).abs().max() < 0.25 / 8 + 0.5 / size  # … nor move far …
            assert found[0] < 1.5 / size and found[-1] > 1 - 1.5 / size  # the border stays


def test_distortion_keeps_plain_images_plain():
    images = torch.full((2, 4, 4, 32, 32), 0.3)
    assert torch.allclose(ALWAYS.grid_distortion(images, [1, 2]), images, atol=1e-6)


def test_transparent_stays_white_and_the_object_is_not_darkened():
    """What bends is colour times coverage: no fringe appears between an object and its background."""
    raw = batch(1)
    images = torch.full_like(raw.input.images, 255)
    images[..., :12] = 0  # black under the transparent half, white in the object
    alphas = torch.zeros_like(raw.input.alphas)
    alphas[..., 12:] = 255
    raw = replace(raw, input=replace(raw.input, images=images, alphas=alphas))
    assert torch.allclose(prepared(ALWAYS, raw).input.images, torch.ones(()), atol=1e-6)


# -- the cameras -------------------------------------------------------------------------------------


def test_jittered_cameras_keep_their_radius_and_look_at_the_origin():
    raw = batch(8, (10, -20, 70, 40))
    cameras = prepared(ALWAYS, raw).input.cameras
    distance = cameras.centers.norm(dim=-1)
    assert torch.allclose(distance, torch.tensor(1.5), atol=1e-5)
    assert torch.allclose(cameras.c2w[..., :3, 2], -cameras.centers / 1.5, atol=1e-5)
    rotations = cameras.c2w[..., :3, :3]
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotations), torch.tensor(1.0), atol=1e-5)
    assert torch.equal(cameras.c2w[..., 3, :], torch.tensor([0.0, 0, 0, 1]).expand(8, 4, 4))


def test_at_elevation_zero_the_angles_are_azimuth_and_elevation_and_rays_follow():
    azimuth, elevation = torch.tensor([12.0, -18.0, 5.0]), torch.tensor([-9.0, 4.0, 0.5])
    before = Cameras.orbit([0, 0, 0], [0, 90, 200])
    told = Cameras(turn_about_origin(before.c2w, azimuth.deg2rad(), elevation.deg2rad()), before.K_norm)
    there = Cameras.orbit(elevation, before.azimuth_deg + azimuth)
    assert torch.allclose(told.c2w, there.c2w, atol=1e-5)
    assert torch.allclose(plucker_rays(told, 8, 8), plucker_rays(there, 8, 8), atol=1e-5)


def test_jitter_moves_as_far_at_any_elevation_and_in_any_frame():
    azimuth = torch.full((4,), 18.0).deg2rad()
    before = Cameras.orbit([0, 30, 60, 85], [10, 20, 30, 40])
    after = turn_about_origin(before.c2w, azimuth, torch.zeros(4))
    moved = (after[:, :3, 3] * before.centers).sum(dim=-1) / 1.5**2
    assert torch.allclose(moved.acos().rad2deg(), torch.tensor(18.0), atol=1e-2)
    frame = before.c2w[2]
    inside = turn_about_origin(canonicalise(before.c2w, frame), azimuth, torch.zeros(4))
    assert torch.allclose(inside, canonicalise(after, frame), atol=1e-5)


def test_the_batch_is_prepared_with_the_angles_that_were_drawn():
    cameras = prepared(replace(ALWAYS, grid_distortion=None)).input.cameras
    _, azimuth_deg, elevation_deg = ALWAYS.camera_jitter.draw(batch().seeds, 3)
    assert torch.allclose(cameras.elevation_deg[:, 1:], elevation_deg, atol=1e-3)
    off = (cameras.azimuth_deg[:, 1:] - torch.tensor([90.0, 180, 270]) - azimuth_deg + 180) % 360 - 180
    assert off.abs().max() < 1e-3


# -- what is behind ----------------------------------------------------------------------------------


def test_targets_lie_over_their_objects_colour_and_inputs_over_white():
    raw = batch(2)
    raw = replace(raw, target=replace(raw.target, alphas=torch.zeros_like(raw.target.alphas)))
    made = prepared(Augmentation(random_background=RandomBackground(1.0)), raw)
    assert made.background.unique(dim=0).shape == (2, 3)
    assert torch.equal(made.target.images[:, 5, :, 3, 4], made.background)
    assert differing(made, prepared(None, raw)) == {"target.images", "background"}


def test_a_prepared_batch_knows_its_background():
    made = Preparation(16, 16, background=(0.2, 0.4, 0.6))(batch(2))
    assert torch.equal(made.background, torch.tensor([[0.2, 0.4, 0.6]]).expand(2, 3))


# -- in a run ----------------------------------------------------------------------------------------


class OneGaussian(nn.Module):
    def forward(self, images, cameras, alphas=None):
        return Gaussians(
            means=torch.zeros(len(images), 1, 3),
            quats=torch.tensor([1.0, 0, 0, 0]).expand(len(images), 1, -1),
            scales=torch.full((len(images), 1, 3), 0.05),
            opacities=torch.full((len(images), 1), 0.9),
            colors=torch.zeros(len(images), 1, 3),
        )


@pytest.mark.parametrize("training", [True, False])
def test_a_training_step_is_augmented_and_rendered_over_its_targets_colours(training):
    preparation = Preparation(16, 24, augmentation=ALWAYS, other_target_sizes=(12,))
    module = LGMModule(OneGaussian(), TorchRenderer(), preparation)
    module._trainer = SimpleNamespace(training=training, global_step=7)
    assert module.on_after_batch_transfer(batch(), 0).target.images.shape[-1] == (12 if training else 24)
    module._trainer.global_step = 8
    made = module.on_after_batch_transfer(batch(), 0)
    assert bool(differing(made, prepared(None))) == training
    images = module.predict(made).render.images
    corner = made.background[:, None].expand(-1, 6, -1)
    assert torch.equal(images[..., 0, 0], corner)
    assert bool((corner != 1).any()) == training


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridDistortion(1.5, (8, 16), 0.5), "grid_distortion.probability=1.5"),
        (lambda: GridDistortion(0.5, (16, 8), 0.5), r"grid_distortion.cells=\[16, 8\]"),
        (lambda: GridDistortion(0.5, (8, 16), 1.0), "grid_distortion.strength=1.0"),
        (lambda: CameraJitter(-0.1, 18, 9), "camera_jitter.probability=-0.1"),
        (lambda: CameraJitter(0.5, -18, 9), "camera_jitter.max_azimuth_deg=-18"),
        (lambda: CameraJitter(0.5, 18, 300), "camera_jitter.max_elevation_deg=300"),
        (lambda: RandomBackground(2), "random_background.probability=2"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_erosion_draws_each_views_own_pixels():
    pixels = Erosion(0.5, 2).draw(MANY, 4)
    is_cut = (pixels > 0).any(dim=1).float().mean()
    assert abs(is_cut - 0.5 * (1 - 3.0**-4)) < 0.03
    for count in range(3):
        share = (pixels[(pixels > 0).any(dim=1)] == count).float().mean()
        assert abs(share - 1 / 3) < 0.03
    assert not Erosion(0.0, 2).draw(MANY, 4).any()


def test_erosion_cuts_whole_pixels_off_the_silhouette():
    rgba = torch.zeros(64, 4, 4, 16, 16)
    rgba[..., 4:12, 3:13] = torch.tensor([0.2, 0.4, 0.6, 1.0])[:, None, None]
    rgba[..., 4, 3:13] *= 0.5  # an edge that covers half of its pixels
    erosion, seeds = Erosion(1.0, 2), range(64)
    cut = erosion(rgba, seeds)
    for count in range(3):
        expected = torch.zeros_like(rgba[0, 0])
        expected[:, 4 + count : 12 - count, 3 + count : 13 - count] = torch.tensor([0.2, 0.4, 0.6, 1.0])[
            :, None, None
        ]
        if count < 2:  # the soft edge moves inwards with the rest
            expected[:, 4 + count] *= 0.5
        else:
            expected[:, 6] *= 0.5
        chosen = cut[erosion.draw(seeds, 4) == count]
        assert len(chosen) > 40
        torch.testing.assert_close(chosen, expected.expand_as(chosen))


def test_a_disturbance_is_of_measured_inputs_alone():
    rough = Augmentation(camera_jitter=CameraJitter(1.0, 3.0, 3.0), erosion=Erosion(1.0, 2))
    preparation = Preparation(input_size=16, target_size=24, disturbance=rough)
    plain = Preparation(input_size=16, target_size=24)
    assert differing(preparation(batch(), training=True), plain(batch(), training=True)) == set()
    disturbed, still = preparation(batch()), plain(batch())
    assert not torch.equal(disturbed.input.images, still.input.images)
    torch.testing.assert_close(disturbed.input.cameras.c2w[:, 0], still.input.cameras.c2w[:, 0])
    assert (disturbed.input.cameras.c2w[:, 1:] != still.input.cameras.c2w[:, 1:]).any()
    for name in ("images", "alphas"):
        assert torch.equal(getattr(disturbed.target, name), getattr(still.target, name))
    assert torch.equal(disturbed.target.cameras.c2w, still.target.cameras.c2w)
    again = preparation(batch())
    assert torch.equal(again.input.images, disturbed.input.images), "the same each time"


@pytest.mark.parametrize(("options", "match"), [((1.5, 1), "probability"), ((0.5, -1), "max_pixels=-1")])
def test_erosion_refuses(options, match):
    with pytest.raises(ValueError, match=match):
        Erosion(*options)
