"""What a resumed run takes from its checkpoint, and what from its own configuration.

From the checkpoint: weights, moments, counts of steps. From the configuration: rates, decays,
schedules, batch sizes; a person who resumes with `optimizer.lr=1e-4` means it.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def realign_loops(checkpoint: dict[str, Any], accumulation: int) -> None:
    """Prepare a checkpoint's loops for this run: count batches anew from the optimizer steps, in place.

    Lightning counts batches and derives from them when to step, to log and to validate. That
    count is wrong once the accumulation has changed, and ahead where a run was stopped in the middle
    of one. A run goes on from whole steps: `global_step * accumulation` batches, all done.
    """
    step = checkpoint["global_step"]
    batches = step * accumulation
    done = {"ready": batches, "started": batches, "processed": batches, "completed": batches}
    none = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    # Lightning first finishes a validation that it finds in its middle.
    begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    # The one endless epoch has started and is not finished, also where its end was on record already.
    epoch = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    loop = checkpoint["loops"]["fit_loop"]
    for name, count in (
        ("epoch_loop.batch_progress", done),
        ("epoch_loop.val_loop.batch_progress", begun if checkpoint.get("validation_due") else none),
        ("epoch_progress", epoch),
    ):
        loop[name] |= {"total": dict(count), "current": dict(count)}
        if "is_last_batch" in loop[name]:
            loop[name]["is_last_batch"] = False
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step
    # A schedule is a function of the step, and may be another one now: `restore_options`.
    checkpoint["lr_schedulers"] = []


def option_values(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Each parameter group without its parameters."""
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def restore_options(
    optimizer: Optimizer,
    options: list[dict[str, Any]],
    scheduler: LRScheduler | None,
    schedule: dict[str, Any] | None,
    step: int,
) -> None:
    """After an optimizer and its schedule were loaded: put back the options that they were built with,
    and move the schedule to `step`.

    options: of `option_values` before loading; schedule: the scheduler's state dict before loading.
    """
    for group, fresh in zip(optimizer.param_groups, options, strict=True):
        group.update(fresh)
        if group.get("fused"):  # a count that a CPU has kept on the CPU
            for p in group["params"]:
                if "step" in (state := optimizer.state.get(p, {})):
                    state["step"] = state["step"].to(p.device)
    if scheduler is None or step == 0:
        return
    # A schedule is a function of the step; its own step() evaluates it and sets the rates.
    scheduler.load_state_dict({**schedule, "last_epoch": step - 1, "_step_count": step + 1})
    scheduler.step()
