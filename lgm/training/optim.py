"""Optimizers."""

from collections.abc import Sequence

import torch
from torch import nn


def adamw(
    net: nn.Module,
    lr: float,
    weight_decay: float = 0.05,
    betas: Sequence[float] = (0.9, 0.95),
    decay_norms_and_biases: bool = False,
) -> torch.optim.AdamW:
    """AdamW over the parameters of `net` that want a gradient.

    decay_norms_and_biases: the original decays everything; by default only matrices and kernels
        decay, since pulling a norm's gain or a bias towards zero regularises nothing.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    decayed = [p for p in parameters if decay_norms_and_biases or p.ndim >= 2]
    kept = [p for p in parameters if not (decay_norms_and_biases or p.ndim >= 2)]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=tuple(betas),
        fused=all(p.device.type != "cpu" for p in parameters) or None,
    )
