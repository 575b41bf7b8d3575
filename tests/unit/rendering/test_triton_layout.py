"""What the compiler makes of the blending kernels, which needs no GPU to be seen."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

# The types of the arguments in their order; those that count bytes are multiples of 16.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lgm.rendering.triton_kernels.blending import blend_backward_kernel as kernel

integers = {name: "*i64" for name in ("slots", "starts")} | {"pairs": "*i32"}
integers |= {name: "i32" for name in ("num_gaussians", "num_views", "rows", "columns", "height", "width")}
constants = {"HAS_DEPTHS": False, "HAS_ALPHAS": False, "FIRST": True, "LAST": True}
types = {name: integers.get(name, "*fp32") for name in kernel.arg_names}
types |= {name: "constexpr" for name in constants}
places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
whole = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name not in constants}
source = ASTSource(kernel, types, constexprs=places, attrs=whole)
compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
print(compiled.asm["ptx"].count("shfl.sync"))
"""


def test_sums_over_a_tile_exchange_little_between_lanes(monkeypatch):
    """Twelve exchanges a splat. If a compiler turned the layout over, nothing would be wrong but the
    time: 233 exchanges, and three times as many instructions."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", COMPILE], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= 24
