"""Learning-rate schedules by optimizer step: warm-up with cosine or constant, and the released OneCycle."""

import math

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


def onecycle_released(optimizer: Optimizer, max_steps: int, warmup_steps: int = 3000) -> OneCycleLR:
    """The released program's OneCycleLR: half a cosine from lr/25 up over `warmup_steps`, half a cosine
    down to
    lr/250,000 at `max_steps`; Adam's first beta goes from 0.95 to 0.85 and back with it.
    """
    if not 2 <= warmup_steps < max_steps:
        # The original computes pct_start = 3000 / total_steps and dies in PyTorch's own check.
        raise ValueError(
            f"scheduler.warmup_steps={warmup_steps} must lie between 2 and train.max_steps={max_steps}; "
            "the released program trains for more than 3000 steps"
        )
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=rates, total_steps=max_steps, pct_start=warmup_steps / max_steps)
