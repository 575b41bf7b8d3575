"""A training that is a trial of a sweep: its metric after each validation, and early stopping by a pruner."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.callbacks.order import Stage


class ReportTrial(Callback):
    """Reports a metric after each validation, and stops the training where the sweep prunes it.

    Rank 0 reports; all ranks stop after the same step.

    metric: a key that is logged, e.g. val/psnr.
    report: (optimizer steps, value) -> whether to prune.
    never_logged: makes the error for a metric of validations that no validation logs.
    """

    stage = Stage.REPORT

    def __init__(
        self,
        metric: str,
        report: Callable[[int, float], bool],
        never_logged: Callable[[str], ValueError] = ValueError,
    ) -> None:
        self.metric = metric
        self._report = report
        self._never_logged = never_logged

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.metric)
        if value is None:
            if self.metric.startswith("val/"):  # others have clocks of their own, e.g. eval/…
                logged = ", ".join(sorted(trainer.callback_metrics))
                raise self._never_logged(
                    f"optimized_metric={self.metric} is not logged; what is logged: {logged}"
                )
            return
        pruned = trainer.is_global_zero and self._report(trainer.global_step, float(value))
        if trainer.strategy.broadcast(pruned):
            trainer.should_stop = True
