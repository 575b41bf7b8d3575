"""Steps with a non-finite loss or gradient, on tensors alone; runs of them in tests/integration."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lgm.training.collapse import Collapse, is_collapsed
from lgm.training.skipped_steps import WINDOW, SkippedSteps


def take(skips, net, optimizer, step, factor=1.0):
    optimizer.zero_grad()
    batch = SimpleNamespace(uids=(f"object-{step}",), seeds=(step,))
    skips.checked(net(torch.ones(1, 2)).square().mean() * factor, batch, step).backward()
    norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    skips.judge(optimizer, norm, step)
    optimizer.step()


def state_of(net, optimizer):
    moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
    return [p.detach().clone() for p in net.parameters()] + moments


@pytest.mark.parametrize("fused", [False, True])  # a fused step as on a GPU: it reads the flag itself
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_neither_weights_nor_moments_change(fused, factor):
    torch.manual_seed(0)
    net = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5, fused=fused)
    skips = SkippedSteps()
    take(skips, net, optimizer, 0)
    before = state_of(net, optimizer)
    take(skips, net, optimizer, 1, factor)
    assert skips.last == 1
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(net, optimizer), strict=True))
    take(skips, net, optimizer, 2)
    assert skips.last == 0 and not torch.equal(before[0], net.weight)


def test_a_loss_that_no_gradient_shows_is_skipped_too():
    net = nn.Linear(2, 2)
    before = net.weight.detach().clone()
    optimizer, skips = torch.optim.AdamW(net.parameters()), SkippedSteps()
    loss = net(torch.ones(1, 2)).mean() + torch.tensor(float("inf"))  # its gradient is finite
    skips.checked(loss, SimpleNamespace(uids=("a",), seeds=(1,)), 0).backward()
    skips.judge(optimizer, nn.utils.clip_grad_norm_(net.parameters(), 1.0), 0)
    optimizer.step()
    assert torch.equal(before, net.weight)


def test_reports_and_the_end_after_too_many_in_a_row(tmp_path, caplog):
    net = nn.Linear(2, 2)
    optimizer, skips = torch.optim.SGD(net.parameters(), lr=0.1), SkippedSteps(max_in_a_row=3)
    skips.start(torch.device("cpu"), 0)
    for step in range(8):
        take(skips, net, optimizer, step, float("nan") if step in (1, 2, 5, 6, 7) else 1.0)
        if step == 3:
            assert skips.report(4, tmp_path) is None
            assert "step 2 is skipped: its loss is not finite" in caplog.text and "'object-1'" in caplog.text
    line = skips.report(8, tmp_path, rank=1)
    assert "3 steps in a row (train.max_skipped_in_a_row)" in line and "'object-5', 'object-6'" in line
    assert "\n" not in line and skips.report(8, tmp_path) == line
    first, second = (
        [json.loads(row) for row in (tmp_path / name).read_text().splitlines()]
        for name in ("skipped_batches.jsonl", "skipped_batches_rank1.jsonl")
    )
    assert [row["step"] for row in first] == [2, 3] and [row["step"] for row in second] == [6, 7, 8]
    assert first[0] == {"step": 2, "rank": 0, "loss_is_finite": False, "uids": ["object-1"], "seeds": [1]}


def test_the_end_beyond_a_fraction_of_the_last_steps(tmp_path):
    skips = SkippedSteps(max_fraction=0.01)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    skips.start(torch.device("cpu"), 0)
    lines = {}
    for step in range(3 * WINDOW):
        is_bad = step % 200 == 0 or (step >= 2 * WINDOW and step % 90 == 0)  # 5, then 11 and more
        skips.judge(optimizer, torch.tensor(float("nan") if is_bad else 1.0), step)
        if (step + 1) % 500 == 0:
            lines[step + 1] = skips.report(step + 1, tmp_path)
    assert not any(lines[step] for step in (500, 1000, 1500, 2000))
    assert f"of the last {WINDOW} steps (train.max_skipped_fraction)" in lines[3000]


def test_the_search_for_a_scale_is_no_fault(tmp_path, caplog):
    skips = SkippedSteps(max_in_a_row=3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    skips.start(torch.device("cpu"), 0)
    for step in range(8):
        skips.judge(optimizer, torch.tensor(float("inf")), step, has_scaler=True)
    assert skips.report(8, tmp_path, scale=2.0**8) is None and not caplog.text
    skips.judge(optimizer, torch.tensor(float("inf")), 8, has_scaler=True)
    assert "9 steps in a row" in skips.report(9, tmp_path, scale=2.0**-5)


@pytest.mark.parametrize(("value", "kind"), [(0.0, "0 (nothing"), (1.0, "1 (everything")])
def test_a_collapse_is_said_once_and_after_patience(value, kind):
    target = torch.rand(1, 2, 1, 4, 4)
    alphas = torch.full_like(target, value)
    assert is_collapsed(alphas, target) == 1 and is_collapsed(target, target) == 0
    assert is_collapsed(alphas, alphas) == 0  # the targets are so
    collapse, lines = Collapse(), []
    for step in range(100, 900, 100):
        collapse.note(is_collapsed(alphas, target), alphas.mean())
        lines.append(collapse.warning(step))
    (line,) = filter(None, lines)
    assert line == lines[2] and f"train/alpha is {kind}" in line and "optimizer.lr" in line
    collapse.note(is_collapsed(target, target), target.mean())
    assert collapse.warning(900) is None
