"""What a trial reports while it trains, and how it is pruned."""

import types

import pytest
import torch

from lgm.callbacks import ReportTrial


class Trainer:
    """As much of Lightning's as the callback reads. from_rank_0: what a broadcast gives on another rank."""

    def __init__(self, metrics, rank=0, from_rank_0=None):
        self.callback_metrics = {name: torch.tensor(value) for name, value in metrics.items()}
        self.global_step, self.sanity_checking, self.should_stop = 10, False, False
        self.is_global_zero = rank == 0
        broadcast = lambda value: value if rank == 0 else from_rank_0  # noqa: E731
        self.strategy = types.SimpleNamespace(broadcast=broadcast)


@pytest.mark.parametrize("prunes", [False, True])
def test_the_metric_is_reported_and_a_pruned_training_stops(prunes):
    reported = []

    def report(step, value):
        reported.append((step, value))
        return prunes

    trainer = Trainer({"val/psnr": 21.5, "val/loss": 0.1})
    ReportTrial("val/psnr", report).on_validation_end(trainer, None)
    assert reported == [(10, 21.5)] and trainer.should_stop is prunes


def test_other_ranks_follow_the_first():
    trainer = Trainer({"val/psnr": 21.5}, rank=1, from_rank_0=True)
    ReportTrial("val/psnr", None).on_validation_end(trainer, None)  # which alone reports
    assert trainer.should_stop


def test_a_metric_that_no_validation_logs():
    with pytest.raises(KeyError, match=r"optimized_metric=val/pnsr is not logged.*val/loss, val/psnr"):
        ReportTrial("val/pnsr", None, KeyError).on_validation_end(
            Trainer({"val/psnr": 1.0, "val/loss": 0.1}), None
        )
    # What others log, by clocks of their own, may come yet.
    ReportTrial("eval/canonical4/psnr", None).on_validation_end(Trainer({"val/psnr": 1.0}), None)
