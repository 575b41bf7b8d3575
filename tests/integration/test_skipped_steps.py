"""Injected NaN: the step is skipped on all ranks, and the run goes on or ends in one line."""

import csv
import json
import os

import pytest
import torch

from lgm.losses import CompositeLoss
from lgm.models.checkpoint import network_weights
from tests.integration.running import run_train
from tests.integration.test_hosts import run_on_two_hosts, train
from tests.integration.test_resume import assert_same_weights, last

OPTIONS = ["train.max_steps=6", "train.val_every_steps=100", "train.global_batch_size=4"]
OPTIONS += ["callbacks=train_ema", "train.checkpoint_every_steps=1"]


def spoil(steps, micro_batch=0):
    """From now on the loss of that micro-batch of these steps is NaN; returns what undoes it."""
    original, seen = CompositeLoss.forward, [-1, 0]  # the step, and its micro-batches so far

    def forward(self, prediction, step):
        total, terms = original(self, prediction, step)
        seen[:] = [step, seen[1] + 1 if seen[0] == step else 0]
        is_bad = torch.is_grad_enabled() and step in steps and seen[1] == micro_batch
        return (total * float("nan") if is_bad else total), terms

    CompositeLoss.forward = forward
    return lambda: setattr(CompositeLoss, "forward", original)


@pytest.fixture
def spoiled():
    undo = []
    yield lambda *args: undo.append(spoil(*args))
    for each in reversed(undo):
        each()


def test_a_step_is_skipped_and_a_resume_over_it_is_exact(dataset, tmp_path, spoiled, caplog):
    spoiled({2}, 1)  # the second micro-batch of the third step
    run_train(dataset, tmp_path / "whole", *OPTIONS)
    assert "step 3 is skipped: its loss is not finite (NaN or infinity)" in caplog.text
    kept = last(tmp_path / "whole")
    assert kept["global_step"] == 6 and kept["ema"]["num_updates"] == 5
    counts = {int(state["step"]) for state in kept["optimizer_states"][0]["state"].values()}
    assert counts == {5}
    assert all(x.isfinite().all() for x in network_weights(kept).values())
    (row,) = map(json.loads, (tmp_path / "whole" / "skipped_batches.jsonl").read_text().splitlines())
    assert row["step"] == 3 and row["loss_is_finite"] is False and row["rank"] == 0
    assert len(row["uids"]) == len(row["seeds"]) == 4
    with (tmp_path / "whole" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]  # the schedule and the log went on
    run_train(dataset, tmp_path / "cut", *OPTIONS, "train.max_steps=2", "scheduler.max_steps=6")
    run_train(dataset, tmp_path / "cut", *OPTIONS, "scheduler.max_steps=6")
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_too_many_end_the_run_with_a_good_checkpoint(dataset, tmp_path, spoiled):
    spoiled(range(2, 100))
    with pytest.raises(
        ValueError, match=r"step 5: .*of 3 steps in a row \(train.max_skipped_in_a_row\).*object-"
    ):
        run_train(dataset, tmp_path, *OPTIONS, "train.max_skipped_in_a_row=3")
    kept = last(tmp_path)
    assert kept["global_step"] == 5 and kept["ema"]["num_updates"] == 2
    assert all(x.isfinite().all() for x in network_weights(kept).values())


@pytest.mark.slow
def test_a_loss_of_one_rank_skips_the_step_on_all(dataset, tmp_path):
    def host(*own):
        if os.environ["NODE_RANK"] == "1":
            spoil({1})
        train(*own)

    own = (f"data.path={dataset}", f"run_dir={tmp_path}", "train.max_steps=3", "callbacks=train_ema")
    hosts = run_on_two_hosts(host, own, own)
    assert [host.returncode for host in hosts] == [0, 0], hosts[0].stderr + hosts[1].stderr
    kept = last(tmp_path)
    assert kept["global_step"] == 3 and kept["ema"]["num_updates"] == 2
    assert all(x.isfinite().all() for x in network_weights(kept).values())
    rows = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("skipped_batches*.jsonl"))]
    assert [(row["rank"], row["step"], row["loss_is_finite"]) for row in rows] == [
        (0, 2, True),
        (1, 2, False),
    ]
