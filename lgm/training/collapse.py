"""Detection of collapse: rendered alpha is 0, or 1, at every pixel of every view."""

from __future__ import annotations

import torch
from torch import Tensor

_MARGIN = 0.01
# An untrained network begins opaque, with large Gaussians, and leaves that within some tens of steps.
_PATIENCE_STEPS = 200


def is_collapsed(alphas: Tensor, target_alphas: Tensor) -> Tensor:
    """1 where alphas [B, V, 1, H, W] are all near 0, or all near 1, and the targets' are not; else 0.
    A float32 scalar on the device."""
    low, high = alphas.aminmax()
    target_low, target_high = target_alphas.aminmax()
    is_flat = (high < _MARGIN) | (low > 1 - _MARGIN)
    is_meant = (target_high < _MARGIN) | (target_low > 1 - _MARGIN)
    return (is_flat & ~is_meant).float()


class Collapse:
    """Says once, with what to try, that alpha has been flat for 200 steps; again after it has recovered."""

    def __init__(self) -> None:
        self._noted: Tensor | None = None  # collapsed and alpha, means over micro-batches and ranks
        self._since: int | None = None
        self._was_said = False

    def note(self, collapsed: Tensor | None, alpha: Tensor | None) -> None:
        """Of a logged step, on the device; read by the next `warning`."""
        if collapsed is not None and alpha is not None:
            self._noted = torch.stack([collapsed, alpha])

    def warning(self, step: int) -> str | None:
        """The line, where it is due after `step` steps. Waits for the device."""
        if self._noted is None:
            return None
        (collapsed, alpha), self._noted = self._noted.tolist(), None
        if collapsed < 1:
            self._since, self._was_said = None, False
            return None
        self._since = step if self._since is None else self._since
        if self._was_said or step - self._since < _PATIENCE_STEPS:
            return None
        self._was_said = True
        kind = "0 (nothing is drawn)" if alpha < 0.5 else "1 (everything is covered)"
        return (
            f"step {step}: collapsed: train/alpha is {kind} at every pixel since step {self._since}, and "
            "Gaussians that nobody sees get no gradient; start anew, or from a checkpoint before it, with a "
            "lower optimizer.lr, a longer scheduler.warmup_steps, loss.terms.lpips.start_step=1000, or "
            "model.net.anchors=hull (docs/troubleshooting.md)"
        )
