"""AdamW, and learning rates by batch size."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

RateScaling = Literal["none", "linear", "sqrt"]
_EXPONENTS: dict[RateScaling, float] = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}


def scaled_rate(lr: float, batch_size: int, reference_batch_size: int, scaling: RateScaling) -> float:
    """A rate that was chosen for `reference_batch_size` objects a step, for `batch_size` objects.

    "linear" keeps the progress a step of gradients that agree, "sqrt" the noise of those that do not
    (the usual choice with Adam).
    """
    if scaling not in _EXPONENTS:
        raise ValueError(f"optimizer.lr_scaling={scaling!r} is not one of {', '.join(_EXPONENTS)}")
    return lr * (batch_size / reference_batch_size) ** _EXPONENTS[scaling]


def adamw(
    net: nn.Module,
    batch_size: int,
    lr: float,
    weight_decay: float = 0.05,
    betas: Sequence[float] = (0.9, 0.95),
    decay_norms_and_biases: bool = False,
    lr_scaling: RateScaling = "none",
    reference_batch_size: int = 256,
) -> torch.optim.AdamW:
    """AdamW over the parameters of `net` that want a gradient.

    batch_size: objects an optimizer step, over all devices.
    lr: for a step of `reference_batch_size` objects, where `lr_scaling` is not "none".
    decay_norms_and_biases: the original decays everything; by default only matrices and kernels
        decay, since pulling a norm's gain or a bias towards zero regularises nothing.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("no parameter is left to train; freeze fewer")
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
        lr=scaled_rate(lr, batch_size, reference_batch_size, lr_scaling),
        betas=tuple(betas),
        # One kernel for all tensors on a GPU; None leaves PyTorch's choice on a CPU.
        fused=all(p.device.type != "cpu" for p in parameters) or None,
    )
