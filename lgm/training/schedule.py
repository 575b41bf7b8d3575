"""Learning-rate schedules by optimizer step: warm-up with cosine or constant, and the released OneCycle."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


def warmup_cosine(
    optimizer: Optimizer, max_steps: int, warmup_steps: int = 0, final_fraction: float = 0.0
) -> LambdaLR:
    """Linear warm-up over `warmup_steps`, then half a cosine down to `final_fraction` at `max_steps`."""
    if not 0 <= warmup_steps < max_steps:
        raise ValueError(
            f"scheduler.warmup_steps={warmup_steps} must lie between 0 and train.max_steps={max_steps}"
        )

    def fraction(step: int) -> float:
        if step < warmup_steps:
            # From 1 / warmup_steps, not from 0: the first step would change nothing.
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / (max_steps - warmup_steps))
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, fraction)


def warmup_constant(optimizer: Optimizer, warmup_steps: int = 0) -> LambdaLR:
    """Linear warm-up over `warmup_steps`, then the full rate."""
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup_steps)))


class SeveralStepOneCycle(OneCycleLR):
    """One cycle that advances `per_step` steps at each step: its rates are those of every `per_step`-th step
    of PyTorch's `OneCycleLR`."""

    last_epoch: int

    def __init__(self, optimizer: Optimizer, per_step: int, **options: Any) -> None:
        self.per_step = per_step  # before the constructor, which takes the first step
        super().__init__(optimizer, **options)

    def get_lr(self) -> list[Any]:
        """The rates of the groups at step `last_epoch * per_step` of PyTorch's cycle."""
        step = self.last_epoch
        # last_epoch counts optimizer steps, as of every schedule: a resume sets it (`lgm.training.resume`).
        self.last_epoch = step * self.per_step
        try:
            return super().get_lr()
        finally:
            self.last_epoch = step


def onecycle_released(
    optimizer: Optimizer, max_steps: int, warmup_steps: int = 3000, processes: int = 1
) -> OneCycleLR:
    """The released program's OneCycleLR: half a cosine from lr/25 up over `warmup_steps`, then half a cosine
    down to lr/250,000 at `max_steps`; Adam's first beta goes from 0.95 to 0.85 and back with it.

    processes: GPUs of the run that is imitated. There the library `accelerate` advances the schedule once per
        process at each optimizer step, so that the warm-up ends after `warmup_steps` / processes of them:
        375 on eight. `max_steps` are this run's own optimizer steps.
    """
    cycle = max_steps * processes
    if processes < 1:
        raise ValueError(f"scheduler.processes={processes} must be at least 1")
    if not 2 <= warmup_steps < cycle:
        # The original computes pct_start = 3000 / total_steps and dies in PyTorch's own check.
        raise ValueError(
            f"scheduler.warmup_steps={warmup_steps} must lie between 2 and train.max_steps * "
            f"scheduler.processes = {max_steps} * {processes} = {cycle}; the released program trains for "
            "more than 3000 steps of its schedule"
        )
    rates = [group["lr"] for group in optimizer.param_groups]
    return SeveralStepOneCycle(
        optimizer, processes, max_lr=rates, total_steps=cycle, pct_start=warmup_steps / cycle
    )
