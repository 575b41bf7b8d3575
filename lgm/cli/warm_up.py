"""The warm-up of a run that is shorter than it."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

log = logging.getLogger(__name__)

# Schedules whose warm-up may have any length; OneCycle's is part of its cycle and refuses shorter runs.
_SCHEDULES = ("lgm.training.schedule.warmup_cosine", "lgm.training.schedule.warmup_constant")
_FRACTION = 10  # of a run's steps


def shorten_warm_up(cfg: DictConfig) -> None:
    """Set scheduler.warmup_steps to a tenth of train.max_steps, with one line, where the run would otherwise
    end within its warm-up, before the learning rate is reached."""
    scheduler, max_steps = cfg.scheduler, cfg.train.max_steps
    steps = scheduler.get("warmup_steps")
    if scheduler.get("_target_") not in _SCHEDULES or not isinstance(steps, int) or steps < max_steps:
        return
    scheduler.warmup_steps = max_steps // _FRACTION
    log.warning(
        "scheduler.warmup_steps=%d is not shorter than train.max_steps=%d: it is %d here",
        steps,
        max_steps,
        scheduler.warmup_steps,
    )
