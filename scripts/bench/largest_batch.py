"""The largest batch whose training steps fit into a GPU of some memory, by trying."""

from __future__ import annotations

import gc

import torch
from infer import synchronize  # its neighbour
from train_step import TrainStep  # another

MEMORIES_GB = (24, 40, 80, 141)
CONTEXT_GB = 0.6  # of CUDA itself and its libraries


def find_batches(step: TrainStep, device: torch.device) -> dict[str, int]:
    """The largest batch that fits into each size of memory that the device has, by trying."""
    device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    # A search for each batch takes longer than its steps, and what it keeps needs no more memory.
    torch.backends.cudnn.benchmark = False
    total, largest = torch.cuda.get_device_properties(device).total_memory, 0
    batches = {}
    for gb in MEMORIES_GB:
        if gb * 1e9 <= 1.01 * total:
            batches[f"{gb} GB"] = largest = largest_batch(step, device, gb * 1e9 / total, largest)
    return batches


def largest_batch(step: TrainStep, device: torch.device, fraction: float, fits: int = 0) -> int:
    """Doubled until it does not fit, then halved in between, to a sixteenth. 0: not even one fits.

    fits: is known to.
    """
    outside = CONTEXT_GB * 1e9 / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, fraction) - outside, device)
    try:
        too_many = max(1, 2 * fits)
        while _fits(step, device, too_many):
            fits, too_many = too_many, 2 * too_many
        while too_many - fits > max(1, fits // 16):
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if _fits(step, device, middle) else (fits, middle)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    return fits


def _fits(step: TrainStep, device: torch.device, batch: int) -> bool:
    try:
        step.resize(batch)
        step(), step(), synchronize(device)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        step.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
    return True
