"""Optimizer steps with a non-finite loss or gradient: skipped on all ranks, by a flag on the device.

A skipped batch counts as a step: schedule, sampler and log go on, weights, moments and EMA weights stay. What
a step does is then a function of the checkpoint and of the step alone, and a resume stays exact.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from lgm.errors import shown
from lgm.types import Batch

log = logging.getLogger(__name__)

WINDOW = 1000  # steps that are remembered, and that `max_fraction` is of
# A gradient scale (fp16) is searched by skipping steps and halving it; below this it is no matter of scale.
_SMALLEST_SCALE = 2.0**-4
_NAMED_UIDS, _LONGEST_UID = 8, 60  # objects that a line names, and characters of each
_NAMED_STEPS = 3  # warnings per report


class SkippedSteps:
    """Judges each step's gradient on the device; the host reads the flags at the log interval (`report`).

    Ranks need no flag of their own: a loss that is not finite makes the gradient of all parameters NaN
    (`checked`), and the reduction of gradients hands it to all ranks, whose norms then agree.

    max_in_a_row: skipped steps after which the run ends.
    max_fraction: of the last 1,000 steps, beyond which the run ends.
    """

    def __init__(self, max_in_a_row: int = 10, max_fraction: float = 0.01) -> None:
        self.max_in_a_row, self.max_fraction = max_in_a_row, max_fraction
        self.last: Tensor | None = (
            None  # of the last step: 1 where it was skipped, else 0; float32, on the device
        )
        self.reported = 0  # steps that the host knows about
        self._flags = torch.zeros(WINDOW, 2)  # by step % WINDOW: skipped; this rank's loss was not finite
        # Uids and seeds of each micro-batch of the steps that are not yet reported.
        self._batches: dict[int, list[tuple[tuple[str, ...], tuple[int, ...]]]] = {}
        self._bad_loss: Tensor | None = None  # of the step in hand
        self._in_a_row = 0
        self.fault: str | None = None  # the line that ends the run

    def start(self, device: torch.device, step: int) -> None:
        """Forget everything; `step` steps are done. A resumed run counts anew: it may have other options."""
        self._flags = torch.zeros(WINDOW, 2, device=device)
        self.last, self._bad_loss, self._batches, self._in_a_row = None, None, {}, 0
        self.fault = None
        self.reported = step

    def checked(self, loss: Tensor, batch: Batch, step: int) -> Tensor:
        """The loss [] of a micro-batch of the step after `step` others; where it is not finite, one whose
        gradient is NaN for every parameter, and so on every rank."""
        is_bad = ~loss.detach().isfinite()
        self._bad_loss = is_bad if self._bad_loss is None else self._bad_loss | is_bad
        self._batches.setdefault(step, []).append((batch.uids, batch.seeds))
        # Times exactly 1 otherwise; torch.where's gradient would be 0 instead of NaN.
        return loss * torch.ones_like(loss).masked_fill(is_bad, float("nan"))

    def judge(self, optimizer: Optimizer, norm: Tensor, step: int, has_scaler: bool = False) -> None:
        """Before the step after `step` others: have the optimizer skip it where the gradient's norm [] is not
        finite.

        has_scaler: a GradScaler skips the optimizer's step, by the same infinities.
        """
        skipped = (~norm.detach().isfinite()).float().reshape(())
        self._flags[step % WINDOW, 0] = skipped
        self._flags[step % WINDOW, 1] = 0.0 if self._bad_loss is None else self._bad_loss.float()
        self.last, self._bad_loss = skipped, None
        if has_scaler:
            return
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # As GradScaler hands it over: a fused kernel then leaves weights, moments and counts as they are.
            optimizer.found_inf = skipped  # type: ignore[attr-defined]
        elif bool(skipped):  # on a CPU nothing waits; on a GPU another optimizer than a fused one does
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # which every optimizer leaves alone

    def report(self, step: int, folder: Path, rank: int = 0, scale: float | None = None) -> str | None:
        """Name what was skipped of the `step` steps done, save uids and seeds to
        `<folder>/skipped_batches.jsonl` (`_rank<k>` for further ranks); returns the line that the run ends
        with where there were too many, the same on all ranks. Waits for the device.

        scale: of the gradients in fp16, whose search skips steps too.
        """
        if step <= self.reported:
            return self.fault
        flags = self._flags.tolist()
        is_searching = scale is not None and scale >= _SMALLEST_SCALE
        fault, skipped = None, []
        for number in range(max(self.reported, step - WINDOW), step):
            is_skipped, is_loss = (bool(flag) for flag in flags[number % WINDOW])
            self._in_a_row = self._in_a_row + 1 if is_skipped else 0
            if is_skipped and (is_loss or not is_searching):
                skipped.append((number, is_loss))
            if self._in_a_row >= self.max_in_a_row and not is_searching:
                fault = fault or f"{self._in_a_row} steps in a row (train.max_skipped_in_a_row)"
        # A ring buffer of the last WINDOW steps; earlier flags have been overwritten.
        total = int(sum(flag for flag, _ in flags))
        if total > self.max_fraction * WINDOW and not is_searching:
            fault = fault or f"{total} of the last {WINDOW} steps (train.max_skipped_fraction)"
        if skipped:
            self._save(skipped, folder, rank)
        line = fault and (
            f"step {step}: the gradient or loss of {fault} was not finite (NaN or infinity); these were "
            "skipped, and the weights are those before: go on with a lower optimizer.lr, with "
            "trainer.precision=32-true, or without objects that may be broken: "
            f"{self._named(number for number, _ in skipped)}"
        )
        self.fault = self.fault or line
        self._batches = {number: batches for number, batches in self._batches.items() if number >= step}
        self.reported = step
        return self.fault

    def _save(self, skipped: list[tuple[int, bool]], folder: Path, rank: int) -> None:
        for number, is_loss in skipped[:_NAMED_STEPS]:
            what = "loss" if is_loss else "gradient"
            log.warning(
                "step %d is skipped: its %s is not finite (NaN or infinity); objects of this rank: %s",
                number + 1, what, self._named([number]),
            )  # fmt: skip
        path = folder / ("skipped_batches.jsonl" if rank == 0 else f"skipped_batches_rank{rank}.jsonl")
        if len(skipped) > _NAMED_STEPS:
            log.warning("%d more steps were skipped: %s", len(skipped) - _NAMED_STEPS, path)
        lines = [
            {
                "step": number + 1,
                "rank": rank,
                "loss_is_finite": not is_loss,
                "uids": [uid for uids, _ in self._batches.get(number, []) for uid in uids],
                "seeds": [seed for _, seeds in self._batches.get(number, []) for seed in seeds],
            }
            for number, is_loss in skipped
        ]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        except OSError as error:
            log.warning(
                "%s cannot be written (%s): uids and seeds of skipped steps are not kept", path, error
            )

    def _named(self, numbers: Iterable[int]) -> str:
        """The objects of these steps, of this process, as a list of bounded length."""
        names = [
            repr(shown(uid, _LONGEST_UID))
            for number in numbers
            for uids, _ in self._batches.get(number, [])
            for uid in uids
        ]
        names = list(dict.fromkeys(names))
        more = len(names) - _NAMED_UIDS
        return ", ".join(names[:_NAMED_UIDS]) + (f" and {more} more" if more > 0 else "")
