"""Which operations are computed by our own kernels, and where these run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from lgm.errors import first_line

log = logging.getLogger(__name__)

KernelChoice = Literal["auto", "plain"]
KERNEL_CHOICES = ("auto", "plain")


# What `speed` stands for.
SPEEDS: dict[str, KernelChoice] = {"eager": "plain", "fast": "auto"}


def kernels_for(
    speed: str | None, kernels: KernelChoice | None, name: str = "kernels"
) -> KernelChoice | None:
    """The kernels of a speed, "eager" (PyTorch's own) or "fast" (ours where they run); None, those given.

    name: of `kernels`, for messages. Raises ValueError for an unknown speed, or kernels that are another's.
    """
    if speed is None:
        return kernels
    if speed not in SPEEDS:
        raise ValueError(f"speed={speed} is not one of {', '.join(SPEEDS)}")
    default = SPEEDS[speed]
    if kernels is not None and kernels != default:
        raise ValueError(
            f"speed={speed} is {name}={default} and {name}={kernels} is set; leave one of them out"
        )
    return default


def use_kernels(net: nn.Module, choice: KernelChoice) -> None:
    """Let what `net` can fuse, the modules with a flag `fuse`, be computed by our own kernels where they run
    ("auto"), or never ("plain")."""
    if choice not in KERNEL_CHOICES:
        raise ValueError(f"kernels={choice!r} is not one of {', '.join(KERNEL_CHOICES)}")
    for module in net.modules():
        if hasattr(module, "fuse"):
            module.fuse = choice == "auto"


@contextmanager
def cudnn_benchmark(enabled: bool = True) -> Iterator[None]:
    """Let cuDNN time its kernels at the first convolution of each shape and keep the fastest, within this
    context. Each shape is timed once a process, by at most `torch.backends.cudnn.benchmark_limit` kernels.

    enabled: False leaves the setting, which is the process's, as it is. So do deterministic algorithms: which
        kernel is the fastest, and so how its result is rounded, may differ from one process to the next.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    if enabled and not cudnn.deterministic and not torch.are_deterministic_algorithms_enabled():
        cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.benchmark = before


def kernels_run(x: Tensor) -> bool:
    """Whether our own kernels, which compute in float32 within, take `x`. Where torch.compile is at work,
    which fuses by itself, they do not."""
    if not x.is_cuda or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return False
    return _triton_runs()


@cache
def _triton_runs() -> bool:
    try:
        from triton.runtime import driver

        # Triton compiles a small C module at this call: the import alone says nothing about a compiler.
        driver.active.get_current_device()
    except Exception as error:  # not installed, or it finds no compiler or no Python headers
        log.info("no kernels of our own: triton does not run here (%s)", first_line(error))
        return False
    log.info("what can be fused is computed by our own kernels")
    return True
