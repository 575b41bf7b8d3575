"""What docs/coming-from-lgm.md says of the original program, against its formulas written out here."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import OneCycleLR

from lgm.cameras import Cameras, canonicalise, orbit_poses
from lgm.gaussians import Gaussians
from lgm.metrics import Measurement, Protocol, psnr, released_psnr
from lgm.preparation.augment import source_coordinates
from lgm.preparation.prepare import Preparation, premultiplied, shrunk_as_released
from lgm.training.schedule import onecycle_released
from lgm.types import Batch, Prediction, RenderOutput, Views


def adamw():
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=4e-4, betas=(0.9, 0.95))


def stepped(optimizer, scheduler, per_step, num_steps):
    values = []
    for _ in range(num_steps):
        values.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        optimizer.step()
        for _ in range(per_step):
            if scheduler._step_count <= scheduler.total_steps or per_step == 1:
                scheduler.step()
    return values


@pytest.mark.parametrize("processes", [1, 8])
def test_the_cycle_advances_once_per_process(processes):
    """As accelerate steps a schedule whose length is counted in batches of one process."""
    max_steps = 4000 // processes
    theirs = adamw()
    total = max_steps * processes
    cycle = OneCycleLR(theirs, max_lr=4e-4, total_steps=total, pct_start=3000 / total)
    expected = stepped(theirs, cycle, processes, max_steps)
    ours = adamw()
    values = stepped(ours, onecycle_released(ours, max_steps, processes=processes), 1, max_steps)
    assert values == expected
    rates = [rate for rate, _ in values]
    assert abs(rates.index(max(rates)) - 3000 / processes) <= 1


def test_a_cycle_of_eight_processes_trains_for_fewer_steps():
    onecycle_released(adamw(), max_steps=376, processes=8)
    with pytest.raises(ValueError, match=r"max_steps \* scheduler.processes = 375 \* 8 = 3000"):
        onecycle_released(adamw(), max_steps=375, processes=8)
    with pytest.raises(ValueError, match="processes=0 must be at least 1"):
        onecycle_released(adamw(), max_steps=4000, processes=0)


def views(images, alphas, elevation_deg=(0.0, 0.0), radius=1.5):
    c2w = orbit_poses(list(elevation_deg), [0.0, 90.0], radius)[None]
    num_views = images.shape[1]
    cameras = Cameras.from_fov(c2w[:, :num_views], 49.1)
    return Views(images, alphas, cameras, torch.arange(num_views)[None])


def half_covered(color):
    """One object of one view, of this colour, at alpha 128 of 255."""
    images = torch.full((1, 1, 3, 8, 8), color, dtype=torch.uint8)
    return Batch(
        input=views(images, torch.full((1, 1, 1, 8, 8), 128, dtype=torch.uint8)),
        target=views(images, torch.full((1, 1, 1, 8, 8), 128, dtype=torch.uint8)),
        uids=("a",),
        seeds=(0,),
    )


@pytest.mark.parametrize(("color", "brighter"), [(0, 0.25), (255, 0.0), (51, 0.8 * 0.25)])
def test_targets_composited_twice_are_up_to_a_quarter_brighter(color, brighter):
    alpha, value = 128 / 255, color / 255
    once = Preparation(8, 8)(half_covered(color), training=True)
    twice = Preparation(8, 8, compositing="twice")(half_covered(color), training=True)
    over = value * alpha + (1 - alpha)  # the provider's image, over white
    torch.testing.assert_close(once.target.images, torch.full((1, 1, 3, 8, 8), over))
    expected = over * alpha + (1 - alpha)  # and the model's truth
    torch.testing.assert_close(twice.target.images, torch.full((1, 1, 3, 8, 8), expected))
    assert expected - over == pytest.approx(brighter, abs=1e-4)
    torch.testing.assert_close(twice.input.images, once.input.images)
    assert torch.equal(twice.target.alphas, once.target.alphas)
    measured = Preparation(8, 8, compositing="twice")(half_covered(color))
    torch.testing.assert_close(measured.target.images, once.target.images)


def test_inputs_are_resized_as_there():
    """The provider composites over white and lets F.interpolate sample both; at half the size that is the
    mean of four pixels."""
    images = torch.randint(0, 256, (1, 2, 3, 16, 16), dtype=torch.uint8)
    alphas = torch.randint(0, 256, (1, 2, 1, 16, 16), dtype=torch.uint8)
    alpha = alphas[0].float() / 255
    over = images[0].float() / 255 * alpha + (1 - alpha)
    for size in (8, 11, 16, 24):
        theirs = F.interpolate(over, size=(size, size), mode="bilinear", align_corners=False)
        batch = Batch(input=views(images, alphas), target=views(images, alphas), uids=("a",), seeds=(0,))
        ours = Preparation(size, 16, resize="released")(batch)
        torch.testing.assert_close(ours.input.images[0], theirs, atol=1e-6, rtol=0)
    means = over.unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(shrunk_as_released(over, 8), means, atol=1e-6, rtol=0)
    row = torch.zeros(1, 1, 2, 12)
    row[..., 4] = 1.0
    smooth = F.interpolate(row, size=(1, 6), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(smooth.flatten(), torch.tensor([0, 1 / 8, 3 / 8, 0, 0, 0]))


def test_targets_stay_antialiased():
    images = torch.randint(0, 256, (1, 2, 3, 16, 16), dtype=torch.uint8)
    alphas = torch.full((1, 2, 1, 16, 16), 255, dtype=torch.uint8)
    batch = Batch(input=views(images, alphas), target=views(images, alphas), uids=("a",), seeds=(0,))
    plain, released = (Preparation(8, 8, resize=resize)(batch) for resize in ("antialiased", "released"))
    assert torch.equal(plain.target.images, released.target.images)
    assert not torch.equal(plain.input.images, released.input.images)


def test_much_larger_images_lose_no_pixel():
    """A line that bilinear sampling between every fourth and fifth pixel of a row of 32 would leave out."""
    images = torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8)
    images[..., 0] = 255
    alphas = torch.full((1, 1, 1, 32, 32), 255, dtype=torch.uint8)
    sampled = F.interpolate(images[0].float(), size=(4, 4), mode="bilinear", align_corners=False)
    assert sampled.max() == 0
    assert premultiplied(images, alphas, 4, "released")[:, :, :3].max() > 0.05


@pytest.mark.parametrize(("option", "value"), [("resize", "nearest"), ("compositing", "thrice")])
def test_what_is_unknown_is_refused(option, value):
    with pytest.raises(ValueError, match=rf"data.{option}='{value}' is not one of"):
        Preparation(8, 8, **{option: value})


def prediction(rendered, images, alphas):
    """Of one object and two views, of which the first is its input."""
    target = Views(images, alphas, Cameras.orbit([0.0] * 2, [0.0, 90.0])[None], torch.arange(2)[None])
    inputs = Views(images[:, :1], alphas[:, :1], target.cameras[:, :1], target.view_ids[:, :1])
    batch = Batch(input=inputs, target=target, uids=("a",), background=torch.ones(1, 3))
    render = RenderOutput(rendered, alphas, torch.zeros_like(alphas))
    return Prediction(batch, Gaussians.from_packed(torch.ones(1, 1, 14)), render)


def test_the_printed_psnr():
    """An input with an error of 0.1 and a target with one of 0.2, unclamped; alpha 0.5, black."""
    images, alphas = torch.full((1, 2, 3, 16, 16), 0.5), torch.full((1, 2, 1, 16, 16), 0.5)
    truth = 0.5 * 0.5 + 0.5
    errors = torch.tensor([0.1, 0.5]).view(1, 2, 1, 1, 1)
    made = prediction(truth + errors.expand_as(images), images, alphas)
    expected = -10 * math.log10((0.1**2 + 0.5**2) / 2)
    assert float(released_psnr(made)) == pytest.approx(expected, abs=1e-4)
    measurement = Measurement(Protocol({"name": "x", "released_psnr": True}))
    measurement.add(made)
    assert measurement.released_psnr() == pytest.approx(expected, abs=1e-4)
    # Ours: of the image that is no input, clamped to white, against a target of 0.5.
    assert measurement.table().mean("psnr") == pytest.approx(-10 * math.log10(0.5**2), abs=1e-4)
    plain = Measurement(Protocol({"name": "x"}))
    plain.add(made)
    assert plain.released_psnr() is None


def test_the_printed_psnr_of_the_golden_step(golden):
    """Its masks are binary, so that compositing twice changes nothing: the mean squared error is the loss."""
    tensors, _ = golden("train_step")
    alphas = tensors["alphas"].float() / 255
    images = tensors["images"].float() / 255 * alphas + (1 - alphas)
    cameras = Cameras.from_fov(tensors["c2w"], 49.1)
    target = Views(images, alphas, cameras, torch.arange(8).expand(2, -1))
    render = RenderOutput(tensors["rendered_images"], tensors["rendered_alphas"], torch.zeros_like(alphas))
    batch = Batch(input=target, target=target, uids=("a", "b"), background=torch.ones(2, 3))
    made = Prediction(batch, Gaussians.from_packed(torch.ones(2, 1, 14)), render)
    assert float(released_psnr(made)) == pytest.approx(-10 * math.log10(tensors["loss_rgb"]), abs=1e-4)
    assert psnr(render.images, images).mean() >= released_psnr(made)  # Jensen's inequality


def test_cameras_off_the_radius():
    """There the first camera is put at 1.5 as it is, and the object's centre moves instead."""
    c2w = orbit_poses([0.0, 0.0], [30.0, 120.0], 2.0)
    to_canonical = orbit_poses([0.0], [0.0], 1.5)[0] @ torch.linalg.inv(c2w[0])
    center = (to_canonical @ torch.tensor([0.0, 0, 0, 1]))[:3]
    torch.testing.assert_close(center, torch.tensor([0.0, 0.0, -0.5]), atol=1e-6, rtol=0)
    ours = canonicalise(c2w, c2w[0], 1.5)
    torch.testing.assert_close(ours[:, :3, 3].norm(dim=-1), torch.tensor([1.5, 1.5]))


def their_coordinates(num_lines, moves, size):
    """Where each pixel of a row comes from, in pixels, by the released program's grid: lines cut to whole
    pixels, and between two of them as many points as pixels, both ends included."""
    lines = np.linspace(0, 1, num_lines) + 0.5 * (moves - 0.5) / (num_lines - 1)
    lines = (lines.clip(0, 1) * size).astype(int)
    lines[0], lines[-1] = 0, size
    before = np.linspace(-1, 1, num_lines)
    parts = [np.linspace(before[i], before[i + 1], lines[i + 1] - lines[i]) for i in range(num_lines - 1)]
    return ((np.concatenate(parts) + 1) * size - 1) / 2


def test_their_grid_has_a_frame_and_is_half_a_pixel_off():
    size, rng, off = 256, np.random.default_rng(0), []
    for _ in range(400):
        num_lines = int(rng.integers(8, 17))
        moves = rng.random(num_lines)
        theirs = their_coordinates(num_lines, moves, size)
        assert theirs[0] == -0.5 and theirs[-1] == size - 0.5  # half of each border pixel is padding: 0
        cells = np.arange(num_lines, dtype=np.float32)
        cells[1:-1] += 0.5 * (moves[1:-1] - 0.5)
        ours = source_coordinates(
            torch.from_numpy(cells)[None, None].float(), torch.tensor([num_lines - 1.0]), size
        )
        off.append(theirs - (ours[0, 0].numpy() * size - 0.5))
    assert np.abs(off).mean() == pytest.approx(0.50, abs=0.02)
    assert np.mean(off) == pytest.approx(0.45, abs=0.03)
