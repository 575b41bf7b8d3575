"""A function of tensors of fixed shapes as one CUDA graph, for inference.

Its kernels follow each other without the host, which needs longer to launch them than a GPU needs to compute
them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lgm.kernels.choice import cudnn_benchmark

_WARM_UP_CALLS = 3


class Recording:
    """A CUDA graph of one call of `compute`, to be replayed on other inputs of the same shapes.

    compute: no gradients, no shapes or branches that depend on values, nothing that waits for the device.
    inputs: of the recorded call, on one GPU. What `compute` reads beside them, such as weights, must stay
        where it is.
    """

    def __init__(self, compute: Callable[..., Tensor], *inputs: Tensor) -> None:
        # Not as inference tensors, which could be written to under inference_mode alone.
        with (
            cudnn_benchmark(),
            torch.inference_mode(False),
            torch.no_grad(),
            torch.cuda.device(inputs[0].device),
        ):
            self.inputs = tuple(x.clone() for x in inputs)
            self._warm_up(compute)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=torch.cuda.Stream()):
                self.result = compute(*self.inputs)

    def _warm_up(self, compute: Callable[..., Tensor]) -> None:
        """Compile, search and allocate, which cannot be recorded; on another stream, as graphs want it."""
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_CALLS):
                compute(*self.inputs)
        main.wait_stream(side)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result for other inputs; the next call overwrites it."""
        for buffer, x in zip(self.inputs, inputs, strict=True):
            buffer.copy_(x)
        self.graph.replay()
        return self.result
