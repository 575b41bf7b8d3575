"""More objects than there are: what is mirrored or recoloured stays one consistent object."""

from dataclasses import replace

import pytest
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.preparation.augment import Augmentation
from lgm.preparation.draws import uniforms
from lgm.preparation.prepare import Preparation
from lgm.preparation.variety import ColorJitter, ColorShuffle, Mirror
from lgm.rendering import TorchRenderer
from lgm.types import Batch, Views
from tests.unit.preparation.test_augment import MANY, assert_even, assert_share, batch, differing, prepared

TONES = ColorJitter(1.0, max_gain=1.25, max_gamma=1.25, max_saturation=0.4)


def off_center(num_objects: int = 2) -> Cameras:
    cameras = Cameras.orbit([0.0, 20.0, -30.0], [0.0, 50.0, 200.0])
    K_norm = cameras.K_norm.clone()
    K_norm[..., 0, 2] = 0.4
    return Cameras(*(x.expand(num_objects, *x.shape).contiguous() for x in (cameras.c2w, K_norm)))


def world_and_its_mirror_image() -> tuple[Gaussians, Gaussians]:
    """Random Gaussians, and the same mirrored at x = 0."""
    torch.manual_seed(0)
    world = Gaussians(
        means=torch.rand(1, 30, 3) - 0.5,
        quats=torch.nn.functional.normalize(torch.randn(1, 30, 4), dim=-1),
        scales=0.02 + 0.1 * torch.rand(1, 30, 3),
        opacities=torch.rand(1, 30),
        colors=torch.rand(1, 30, 3),
    )
    mirrored = Gaussians(
        means=world.means * torch.tensor([-1.0, 1.0, 1.0]),
        # A reflection keeps turns about x, and reverses those about y and z.
        quats=world.quats * torch.tensor([1.0, 1.0, -1.0, -1.0]),
        scales=world.scales,
        opacities=world.opacities,
        colors=world.colors,
    )
    return world, mirrored


def test_a_mirrored_world_looks_mirrored():
    """Gaussians mirrored at x = 0, seen by mirrored cameras, are the image mirrored."""
    world, mirrored = world_and_its_mirror_image()
    cameras, mirror = off_center(1), Mirror(1.0)
    plain = TorchRenderer()(world, cameras, 32, 32).images
    moved = mirror.cameras(cameras, mirror.draw([1]))
    assert torch.linalg.det(moved.c2w[..., :3, :3]).allclose(torch.ones(3))
    error = (TorchRenderer()(mirrored, moved, 32, 32).images - mirror.images(plain, mirror.draw([1]))).abs()
    assert (
        error.max() < 0.02 and (error > 1e-5).float().mean() < 0.01
    )  # rounding at the renderer's thresholds


def rendered(world: Gaussians, elevation_deg: list[float], azimuth_deg: list[float], ids: list[int]) -> Views:
    """Views of one scene as a loader makes them: straight 8-bit colour."""
    cameras = Cameras.orbit(elevation_deg, azimuth_deg)
    cameras = Cameras(cameras.c2w[None], cameras.K_norm[None])
    out = TorchRenderer()(world, cameras, 32, 32, background=(0, 0, 0))
    straight = out.images / out.alphas.clamp_min(1e-6)
    return Views(
        *((x.clamp(0, 1) * 255).round().to(torch.uint8) for x in (straight, out.alphas)),
        cameras=cameras,
        view_ids=torch.tensor([ids]),
    )


@pytest.mark.parametrize("start", [0.0, 90.0], ids=["from-the-front", "from-the-right"])
def test_a_mirrored_sample_is_the_mirrored_object_with_its_inputs_in_the_canonical_order(start):
    world, mirrored = world_and_its_mirror_image()
    ring = [(start + azimuth) % 360 for azimuth in (0, 90, 180, 270)]
    raw = Batch(
        input=rendered(world, [0.0] * 4, ring, [0, 1, 2, 3]),
        target=rendered(world, [0, 35, -50], [ring[0], 20, 250], [0, 4, 5]),
        uids=("a",),
        seeds=(1,),
    )
    out = Preparation(32, 32, augmentation=Augmentation(mirror=Mirror(1.0)))(raw, training=True)
    off_deg = (out.input.cameras.azimuth_deg[0] - torch.tensor([0, 90, 180, 270]) + 180) % 360 - 180
    assert off_deg.abs().max() < 1e-3
    assert out.input.view_ids.tolist() == [[0, 3, 2, 1]] and out.target.view_ids.tolist() == [[0, 4, 5]]
    if start:
        return  # the canonical frame is then turned against that of `mirrored`
    for views in (out.input, out.target):
        drawn = TorchRenderer()(mirrored, views.cameras, 32, 32)
        assert (drawn.images - views.images).square().mean() < 1e-5
        assert (drawn.alphas - views.alphas).square().mean() < 1e-5


def test_only_the_inputs_of_mirrored_objects_change_their_order():
    raw, mirror = batch(num_objects=30), Mirror(0.5)
    seeds = list(range(30))
    flags = mirror.draw(seeds)
    ordered = Augmentation(mirror=mirror).ordered(raw.input, seeds)
    for flag, ids, before, after in zip(
        flags, ordered.view_ids, raw.input.images, ordered.images, strict=True
    ):
        order = [0, 3, 2, 1] if flag else [0, 1, 2, 3]
        assert ids.tolist() == order and torch.equal(after, before[order])


def test_the_first_camera_stays_and_who_is_mirrored_is_the_same_for_images_and_cameras():
    mirror, seeds = Mirror(0.5), list(range(40))
    cameras = off_center(40)
    flags = mirror.draw(seeds)
    assert 10 < flags.sum() < 30
    moved = mirror.cameras(cameras, flags)
    assert torch.equal(moved.c2w[:, 0], cameras.c2w[:, 0])
    assert torch.equal((moved.c2w != cameras.c2w).flatten(1).any(dim=1), flags)
    ramp = torch.linspace(0, 1, 8).expand(40, 3, 4, 8, 8)
    assert torch.equal(mirror.images(ramp, flags)[:, 0, 0, 0, 0] == 1, flags)


def test_colours_come_in_all_orders_and_coverage_stays():
    shuffle = ColorShuffle(1.0)
    rgba = torch.tensor([0.1, 0.2, 0.3, 0.4])[None, None, :, None, None].expand(len(MANY), 2, 4, 1, 1)
    shuffled = shuffle.images(rgba, shuffle.draw(MANY))
    assert torch.equal(shuffled[:, 0], shuffled[:, 1]) and torch.equal(shuffled[:, :, 3], rgba[:, :, 3])
    orders, counts = shuffled[:, 0, :3, 0, 0].unique(dim=0, return_counts=True)
    assert len(orders) == 6 and counts.min() > len(MANY) / 6 * 0.8
    sometimes = ColorShuffle(0.5)
    half = (sometimes.images(rgba, sometimes.draw(MANY)) != rgba).flatten(1).any(dim=1).float().mean()
    assert abs(half - 5 / 12) < 0.03  # one order of six is the own one


def test_inputs_and_targets_are_varied_alike_and_only_in_training():
    varied = Augmentation(mirror=Mirror(1.0), color_shuffle=ColorShuffle(1.0), color_jitter=TONES)
    plain = prepared(None)
    assert differing(prepared(varied, training=False), plain) == set()
    nothing = Augmentation(
        mirror=Mirror(0.0), color_shuffle=ColorShuffle(0.0), color_jitter=ColorJitter(0.0, 1.25, 1.25, 0.4)
    )
    assert differing(prepared(nothing), plain) == set()
    raw = batch()
    same = replace(raw, target=raw.input)  # targets that are the inputs must stay them
    changed = Preparation(24, 24, augmentation=varied)(same, training=True)
    order = [0, 3, 2, 1]  # of a mirrored object's inputs
    assert torch.equal(changed.input.images, changed.target.images[:, order])
    assert torch.equal(changed.input.cameras.c2w, changed.target.cameras.c2w[:, order])
    assert not torch.equal(changed.input.images, Preparation(24, 24)(same, training=True).input.images)


# -- tones -------------------------------------------------------------------------------------------


def test_gains_gammas_and_saturation_are_even_within_their_bounds():
    applied, gains, gammas, saturation = ColorJitter(0.5, 1.25, 1.5, 0.4).draw(MANY)
    assert_share(applied, 0.5)
    for factors, maximum in ((gains, 1.25), (gammas, 1.5)):
        assert factors.shape == (len(MANY), 3)
        for channel in factors.log().unbind(1):
            assert_even(channel, -torch.tensor(maximum).log().item(), torch.tensor(maximum).log().item())
    assert_even(saturation, 0.6, 1.4)


def test_a_colour_follows_its_tone_curve_and_half_covered_pixels_that_of_the_whole_colour():
    color, gains = torch.tensor([0.5, 0.2, 0.8]), torch.tensor([[1.2, 0.9, 1.1]])
    gammas, saturation = torch.tensor([[0.9, 1.2, 1.0]]), torch.tensor([[1.3]])
    alphas = torch.tensor([1.0, 0.5, 0.0])
    rgba = torch.cat([color * alphas[:, None], alphas[:, None]], dim=1).T.view(1, 1, 4, 1, 3)
    toned = TONES.images(rgba, torch.tensor([True]), gains, gammas, saturation)[0, 0, :, 0]  # [4, 3]
    curve = gains[0] * color ** gammas[0]
    luma = (curve * torch.tensor([0.299, 0.587, 0.114])).sum()
    expected = (luma + 1.3 * (curve - luma)).clamp(0, 1)
    assert toned[:3, 0].allclose(expected, atol=1e-6)
    assert toned[:3, 1].allclose(expected / 2, atol=1e-6)
    assert toned[:3, 2].eq(0).all() and torch.equal(toned[3], alphas)


def test_tones_leave_coverage_and_the_background_and_depend_on_the_seed_alone():
    raw, plain = batch(num_objects=3), prepared(None)
    changed = prepared(Augmentation(color_jitter=TONES), raw)
    assert differing(changed, plain) == {"input.images", "target.images"}
    assert changed.input.images.min() >= 0 and changed.input.images.max() <= 1
    empty = replace(raw, input=replace(raw.input, alphas=torch.zeros_like(raw.input.alphas)))
    assert prepared(Augmentation(color_jitter=TONES), empty).input.images.eq(1).all()
    alone = Batch(
        input=batch(num_objects=1).input, target=batch(num_objects=1).target, uids=("x",), seeds=(50,)
    )
    seeded = replace(alone, seeds=(51,))
    first, other = (prepared(Augmentation(color_jitter=TONES), x).input.images for x in (alone, seeded))
    again = prepared(Augmentation(color_jitter=TONES), alone).input.images
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_objects_that_are_not_drawn_keep_every_bit():
    half = ColorJitter(0.5, 1.25, 1.25, 0.4)
    raw = batch(num_objects=8)
    changed = prepared(Augmentation(color_jitter=half), raw).target.images
    differs = (changed != prepared(None, raw).target.images).flatten(1).any(dim=1)
    assert torch.equal(differs, half.draw(raw.seeds)[0]) and 0 < differs.sum() < 8


def test_tones_are_drawn_apart_from_all_else():
    streams = [uniforms([7], stream, 8, "cpu") for stream in range(7)]
    assert torch.stack(streams).unique(dim=0).shape[0] == 7


@pytest.mark.parametrize(
    "options", [{"max_gain": 0.9}, {"max_gamma": float("nan")}, {"max_saturation": 1.5}, {"probability": 2}]
)
def test_tones_that_cannot_be_are_refused(options):
    (name, value) = next(iter(options.items()))
    with pytest.raises(ValueError, match=rf"color_jitter\.{name}={value}"):
        ColorJitter(
            **{"probability": 0.5, "max_gain": 1.2, "max_gamma": 1.2, "max_saturation": 0.2, **options}
        )
