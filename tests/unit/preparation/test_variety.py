"""More objects than there are: what is mirrored or recoloured stays one consistent object."""

from dataclasses import replace

import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.preparation.augment import Augmentation
from lgm.preparation.prepare import Preparation
from lgm.preparation.variety import ColorShuffle, Mirror
from lgm.rendering import TorchRenderer
from tests.unit.preparation.test_augment import MANY, batch, differing, prepared


def off_center(num_objects: int = 2) -> Cameras:
    cameras = Cameras.orbit([0.0, 20.0, -30.0], [0.0, 50.0, 200.0])
    K_norm = cameras.K_norm.clone()
    K_norm[..., 0, 2] = 0.4
    return Cameras(*(x.expand(num_objects, *x.shape).contiguous() for x in (cameras.c2w, K_norm)))


def test_a_mirrored_world_looks_mirrored():
    """Gaussians mirrored at x = 0, seen by mirrored cameras, are the image mirrored."""
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
    cameras, mirror = off_center(1), Mirror(1.0)
    plain = TorchRenderer()(world, cameras, 32, 32).images
    moved = mirror.cameras(cameras, mirror.draw([1]))
    assert torch.linalg.det(moved.c2w[..., :3, :3]).allclose(torch.ones(3))
    error = (TorchRenderer()(mirrored, moved, 32, 32).images - mirror.images(plain, mirror.draw([1]))).abs()
    assert (
        error.max() < 0.02 and (error > 1e-5).float().mean() < 0.01
    )  # rounding at the renderer's thresholds


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
    varied = Augmentation(mirror=Mirror(1.0), color_shuffle=ColorShuffle(1.0))
    plain = prepared(None)
    assert differing(prepared(varied, training=False), plain) == set()
    nothing = Augmentation(mirror=Mirror(0.0), color_shuffle=ColorShuffle(0.0))
    assert differing(prepared(nothing), plain) == set()
    raw = batch()
    same = replace(raw, target=raw.input)  # targets that are the inputs must stay them
    changed = Preparation(24, 24, augmentation=varied)(same, training=True)
    assert torch.equal(changed.input.images, changed.target.images)
    assert torch.equal(changed.input.cameras.c2w, changed.target.cameras.c2w)
    assert not torch.equal(changed.input.images, Preparation(24, 24)(same, training=True).input.images)
