"""What cameras are made of, looked at where that costs nothing."""

import math

import torch
from torch import Tensor


def check_between(
    name: str, values: float | list[float] | Tensor, low: float = -math.inf, high: float = math.inf
) -> None:
    """Raise ValueError, naming the first value that is not finite or not within (low, high).

    Values on a GPU are taken as they are: looking at them would make the program wait for it.
    """
    values = torch.as_tensor(values).detach()
    if values.device.type != "cpu":
        return
    wrong = values[~((values > low) & (values < high))]
    if len(wrong):
        bounds = {(-math.inf, math.inf): "be finite", (0, math.inf): "be above 0, and finite"}
        must = bounds.get((low, high), f"lie between {low:g} and {high:g}")
        raise ValueError(f"{name}={float(wrong[0]):g} must {must}")


def check_broadcast(shape: torch.Size, **values: Tensor) -> None:
    """Raise ValueError for a value that is neither one for all cameras of a batch shape nor one for each."""
    for name, value in values.items():
        try:
            fits = torch.broadcast_shapes(shape, value.shape) == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"{name} of shape {list(value.shape)} fits no cameras of batch shape {list(shape)}: give one "
                "number, or one for each"
            )
