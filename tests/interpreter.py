"""Triton's interpreter, which runs kernels on the CPU: where it can stand in for a GPU."""

from __future__ import annotations

import functools
import importlib.util

import pytest
import torch


def needs_interpreter() -> None:
    """Skip the calling test, or the module at whose top this stands, with the reason."""
    if (fault := interpreter_fault()) is not None:
        pytest.skip(fault, allow_module_level=True)


@functools.cache
def interpreter_fault() -> str | None:
    """Why kernels are not tested through the interpreter; None where they are."""
    if importlib.util.find_spec("triton") is None:
        return "no triton"
    if torch.cuda.is_available():
        return "Triton's interpreter runs where no GPU is; tests/gpu has its own"
    import numpy
    import triton
    import triton.language as tl

    @triton.jit
    def count_kernel(bound, out):
        for _ in range(0, tl.load(bound)):
            tl.store(out, tl.load(out) + 1)

    count = torch.zeros(1, dtype=torch.int32)
    try:  # Triton 3.6 reads a loop's bound as int(array of one element), which numpy 2.4 refuses
        count_kernel[(1,)](torch.tensor([3], dtype=torch.int32), count)
    except Exception as error:
        first = str(error).partition("\n")[0]
        return f"the interpreter of Triton {triton.__version__} fails with numpy {numpy.__version__}: {first}"
    assert count.item() == 3
    return None
