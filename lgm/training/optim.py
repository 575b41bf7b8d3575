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
    # By module and name, not by shape: sharding makes every parameter flat.
    spared = (
        set()
        if decay_norms_and_biases
        else {
            id(p)
            for module in net.modules()
            for name, p in module.named_parameters(recurse=False)
            if name == "bias" or isinstance(module, (nn.GroupNorm, nn.LayerNorm))
        }
    )
    decayed = [p for p in parameters if id(p) not in spared]
    kept = [p for p in parameters if id(p) in spared]
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
