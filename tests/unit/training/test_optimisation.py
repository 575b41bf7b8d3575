"""Rates, decays and schedules, as functions of the step."""

import math

import pytest
import torch
from torch import nn

from lgm.training.optim import adamw, scaled_rate
from lgm.training.resume import option_values, restore_options
from lgm.training.schedule import onecycle_released, warmup_constant, warmup_cosine


def net():
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.GroupNorm(32, 32), nn.Conv2d(32, 3, 3))


def rates(optimizer, scheduler, steps):
    values = []
    for _ in range(steps):
        values.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize(("everything", "decayed"), [(False, 2), (True, 6)])
def test_what_decays(everything, decayed):
    optimizer = adamw(net(), 256, lr=1e-3, weight_decay=0.1, decay_norms_and_biases=everything)
    groups = {group["weight_decay"]: len(group["params"]) for group in optimizer.param_groups}
    assert groups[0.1] == decayed and sum(groups.values()) == 6


def test_a_rate_for_another_batch():
    assert scaled_rate(4e-4, 64, 256, "none") == 4e-4
    assert scaled_rate(4e-4, 64, 256, "linear") == pytest.approx(1e-4)
    assert scaled_rate(4e-4, 64, 256, "sqrt") == pytest.approx(2e-4)
    assert adamw(net(), 64, lr=4e-4, lr_scaling="sqrt").param_groups[0]["lr"] == pytest.approx(2e-4)
    with pytest.raises(ValueError, match="lr_scaling='cubic' is not one of none, linear, sqrt"):
        scaled_rate(4e-4, 64, 256, "cubic")


def test_nothing_left_to_train():
    frozen = net().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is left to train; freeze fewer"):
        adamw(frozen, 1, lr=1e-3)


def test_the_papers_cosine_ends_at_nothing():
    optimizer = adamw(net(), 256, lr=4e-4)
    values = [lr for lr, _ in rates(optimizer, warmup_cosine(optimizer, max_steps=100), 101)]
    assert (
        values[0] == 4e-4 and values[50] == pytest.approx(2e-4) and values[100] == pytest.approx(0, abs=1e-12)
    )


def test_the_released_cycle():
    """Rate and first beta against the formula of PyTorch's documentation."""
    optimizer = adamw(net(), 256, lr=4e-4, betas=(0.9, 0.95))
    values = rates(optimizer, onecycle_released(optimizer, max_steps=200, warmup_steps=50), 200)

    def cosine(start, end, fraction):
        return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))

    for step in (0, 20, 49):
        expected = cosine(4e-4 / 25, 4e-4, step / 49), cosine(0.95, 0.85, step / 49)
        assert values[step] == pytest.approx(expected, rel=1e-6)
    for step in (60, 120, 199):
        fraction = (step - 49) / 150
        expected = cosine(4e-4, 4e-4 / 25 / 1e4, fraction), cosine(0.85, 0.95, fraction)
        assert values[step] == pytest.approx(expected, rel=1e-6)


def test_the_released_cycle_needs_more_steps_than_its_warm_up():
    fault = r"warmup_steps=3000 .* scheduler.processes = 3000 \* 1 = 3000; the released program"
    with pytest.raises(ValueError, match=fault):
        onecycle_released(adamw(net(), 256, lr=4e-4), max_steps=3000)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: warmup_cosine(optimizer, max_steps=40, warmup_steps=5),
        lambda optimizer: warmup_constant(optimizer, warmup_steps=5),
        lambda optimizer: onecycle_released(optimizer, max_steps=40, warmup_steps=5),
        lambda optimizer: onecycle_released(optimizer, max_steps=40, warmup_steps=60, processes=3),
    ],
)
def test_a_restored_schedule_stands_where_an_uninterrupted_one_does(schedule):
    whole = adamw(net(), 256, lr=1e-3)
    expected = rates(whole, schedule(whole), 30)
    optimizer = adamw(net(), 256, lr=1e-3)
    scheduler = schedule(optimizer)
    options, state = option_values(optimizer), scheduler.state_dict()
    for group in optimizer.param_groups:  # what a checkpoint of another rate would have left there
        group.update(lr=7.0, initial_lr=7.0, weight_decay=7.0)
    restore_options(optimizer, options, scheduler, state, step=12)
    assert optimizer.param_groups[0]["weight_decay"] == 0.05
    assert rates(optimizer, scheduler, 18) == expected[12:]


def test_gradient_checkpointing_and_compilation_change_no_number(any_shape):
    from lgm.cameras import Cameras
    from lgm.models import LGM
    from lgm.models.blocks import use_gradient_checkpointing

    def gradients(prepare):
        torch.manual_seed(0)
        model = LGM((32, 32), (False, True), True, (32, 32), (True, False), input_size=16)
        names = set(model.state_dict())
        prepare(model)
        assert set(model.state_dict()) == names
        cameras = Cameras.orbit([0.0] * 4, [0.0, 90, 180, 270])[None]
        images = torch.rand(1, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        model(images, cameras).packed().square().sum().backward()
        return [p.grad for p in model.parameters()]

    plain = gradients(lambda model: None)
    twice = gradients(use_gradient_checkpointing)
    assert all(torch.equal(a, b) for a, b in zip(plain, twice, strict=True))
    compiled = gradients(lambda model: model.unet.compile(backend="aot_eager"))
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()) + 1e-7)
