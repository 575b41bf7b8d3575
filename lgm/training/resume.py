"""Resume: what a run takes from its checkpoint, and what from its own configuration.

From the checkpoint: weights, moments, counts of steps. From the configuration: rates, decays,
schedules, batch sizes; a person who resumes with `optimizer.lr=1e-4` means it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lgm.errors import shown
from lgm.tensor_files import check_tensor

_MOST_STEPS = 2**53
_LIGHTNING_2 = re.compile(r"2\.\d{1,4}\.\d{1,4}(\.?(a|b|rc|dev|post)\d{1,8})?(\+[a-z0-9.]{1,40})?", re.ASCII)


def check_state(checkpoint: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Raise ValueError where what a run goes on from besides its weights is not of the form that Lightning
    and `optimizer` expect: they would fail somewhere in the middle, or go on from nonsense.

    Messages do not name the file: call it within `lgm.errors.reading`.
    """
    for name in ("global_step", "epoch"):
        if type(step := checkpoint.get(name)) is not int or not 0 <= step < _MOST_STEPS:
            raise ValueError(f"its {name} is {shown(step, 60)}, not a count")
    if not _LIGHTNING_2.fullmatch(version := checkpoint["pytorch-lightning_version"]):
        raise ValueError(f"it was written by Lightning {shown(version, 60)}, this program goes on from 2.x")
    for name in ("loops", "callbacks", "ObjectDataModule"):
        if not isinstance(checkpoint.get(name, {}), dict):
            raise ValueError(f"its {name} is {type(checkpoint[name]).__name__}, not named states")
    states = checkpoint.get("optimizer_states")
    if not isinstance(states, list) or len(states) != 1:
        raise ValueError("it holds no state of one optimizer")
    _check_moments(states[0], [p for group in optimizer.param_groups for p in group["params"]])


def _check_moments(states: Mapping[str, Any], parameters: list[Tensor]) -> None:
    # Parameters are numbered over all groups, in the order of the optimizer that saved them.
    order = [index for group in states["param_groups"] for index in group["params"]]
    if sorted(order) != list(range(len(parameters))):
        raise ValueError(f"its optimizer is not one of {len(parameters)} parameters")
    of = dict(zip(order, parameters, strict=True))
    for index, values in states["state"].items():
        for name, value in values.items():
            at = f"its optimizer's {shown(name, 60)} of parameter {shown(index, 60)}"
            if isinstance(value, Tensor):
                check_tensor(value, at)
                if value.numel() != 1 and value.shape != of[index].shape:
                    raise ValueError(
                        f"{at} has shape {tuple(value.shape)}, the parameter {tuple(of[index].shape)}"
                    )
                if not value.isfinite().all():
                    raise ValueError(f"{at} is not finite (NaN or infinity)")
            elif value is not None and type(value) not in (bool, int, float):
                raise ValueError(f"{at} is {type(value).__name__}, not a number")


def check_counts(given: Any, expected: Any, at: str) -> None:
    """Raise ValueError where nested counts are not of the form of others: a subset of their names, each a
    count or a flag as there."""
    if isinstance(expected, dict):
        if not isinstance(given, dict) or not set(given) <= set(expected):
            raise ValueError(f"{at} holds something else than {', '.join(expected) or 'nothing'}")
        for name, value in given.items():
            check_counts(value, expected[name], f"{at}.{name}")
    elif type(given) is not type(expected) or (type(given) is int and not 0 <= given < _MOST_STEPS):
        raise ValueError(f"{at} is {shown(given, 60)}, not a count as {shown(expected, 60)}")


def realign_loops(checkpoint: dict[str, Any], accumulation: int) -> None:
    """Prepare a checkpoint's loops for this run: count batches anew from the optimizer steps, in place.

    Lightning counts batches and derives from them when to step, to log and to validate. That
    count is wrong once the accumulation has changed, and ahead where a run was stopped in the middle
    of one. A run goes on from whole steps: `global_step * accumulation` batches, all done.
    """
    step = checkpoint["global_step"]
    # Gradient accumulation: so many micro-batches of this run's size make the steps done.
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
        # Learning rate, decay and betas of the configuration, not of the checkpoint.
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
