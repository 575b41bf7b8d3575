"""Random numbers of augmentations: drawn on the host, for each object from its own seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def uniforms(
    seeds: Sequence[int], stream: int, count: int, device: torch.device | str
) -> Float[Tensor, "B count"]:
    """`count` numbers in [0, 1) for each object, a function of its seed and the stream alone."""
    drawn = [np.random.default_rng([seed, stream]).random(count, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(drawn)).to(device, non_blocking=True)


def check_probability(name: str, probability: float) -> None:
    """Raise ValueError, naming the option, for a probability outside of 0..1 (NaN included)."""
    if not 0 <= probability <= 1:
        raise ValueError(f"data.augment.{name}.probability={probability} must lie between 0 and 1")
