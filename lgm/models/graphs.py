"""A training step's network as two CUDA graphs: its forward pass and its backward pass, each captured once.

A pass of the U-Net is some thousand kernels, and the host needs longer to launch them one by one than a GPU
needs to compute them. Replayed, they follow each other without the host. The kernels are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_WARM_UP_STEPS = 2  # kernels are compiled and libraries choose theirs, which cannot be recorded


class TrainingGraphs:
    """Calls a U-Net, by replaying it where a gradient of its weights is wanted; else as it is.

    Inputs of another shape or precision, weights that have moved, and other frozen weights are recorded
    anew, in the place of what was recorded before. A graph keeps its activations and gradients in memory of
    its own for as long as it lives. Not for sharded weights, nor where gradients are to be sent while others
    are still computed: they all come out at once.
    """

    def __init__(self) -> None:
        self._recording: _Recording | None = None
        self._key: tuple[Any, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainingGraphs:
        return TrainingGraphs()  # a copy's weights lie elsewhere

    def __call__(
        self, unet: nn.Module, x: Float[Tensor, "BV C H W"], num_views: int
    ) -> Float[Tensor, "BV D h w"]:
        parameters = [p for p in unet.parameters() if p.requires_grad]
        if not parameters or not x.is_cuda or x.requires_grad or not torch.is_grad_enabled():
            return unet(x, num_views)
        kind = x.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        # A graph has addresses baked in: weights that moved, or were frozen since, need a new capture.
        addresses = tuple(p.data_ptr() if p.requires_grad else -p.data_ptr() for p in unet.parameters())
        key = (x.shape, x.dtype, num_views, autocast, addresses)
        if key != self._key:
            self._recording = None  # gives its memory back first
            self._recording, self._key = _Recording(unet, parameters, x, num_views, autocast), key
        return _Replay.apply(self._recording, x, *parameters)


class _Recording:
    """The kernels of one forward and one backward pass, and the tensors that they read and write."""

    def __init__(
        self,
        unet: nn.Module,
        parameters: list[nn.Parameter],
        x: Tensor,
        num_views: int,
        autocast: torch.dtype | None,
    ) -> None:
        self.parameters = parameters
        self.x = x.detach().clone()
        self.calls = 0
        kind = x.device.type

        def compute() -> Tensor:
            # Its cache would hold casts of weights that a later replay has to make again.
            with torch.autocast(kind, autocast, enabled=autocast is not None, cache_enabled=False):
                return unet(self.x, num_views)

        with torch.cuda.device(x.device), torch.enable_grad():
            side, main = torch.cuda.Stream(), torch.cuda.current_stream()
            side.wait_stream(main)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_STEPS):
                    y = compute()
                    torch.autograd.grad(y, parameters, torch.zeros_like(y), allow_unused=True)
            main.wait_stream(side)
            del y
            # Other threads, such as loaders', may go on with what a capture forbids.
            options = {"stream": side, "capture_error_mode": "thread_local"}
            self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.forward, **options):
                y = compute()
            self.grad_y = torch.zeros_like(y)
            # One memory pool: the backward pass reads the activations that the forward pass left there.
            with torch.cuda.graph(self.backward, pool=self.forward.pool(), **options):
                self.grads = torch.autograd.grad(y, parameters, self.grad_y, allow_unused=True)
            self.y = y.detach()

    def keep_gradients(self) -> None:
        """Gradients of an earlier batch that are still to be added to: autograd took the graph's own tensors,
        in memory that the forward pass uses again."""
        for parameter, grad in zip(self.parameters, self.grads, strict=True):
            kept = parameter.grad
            if kept is not None and grad is not None and kept.data_ptr() == grad.data_ptr():
                parameter.grad = kept.clone()


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, x: Tensor, *parameters: Tensor) -> Tensor:
        recording.calls += 1
        ctx.recording, ctx.call = recording, recording.calls
        recording.keep_gradients()
        recording.x.copy_(x)
        recording.forward.replay()
        # A copy: the next replay overwrites the graph's own output.
        return recording.y.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        recording = ctx.recording
        # A second forward pass has overwritten the activations of the first.
        if ctx.call != recording.calls:
            raise RuntimeError(
                "train.graph=true keeps the activations of one forward pass, and another one came before "
                "this backward pass; set train.graph=false"
            )
        recording.grad_y.copy_(grad_y)
        recording.backward.replay()
        return None, None, *(None if grad is None else grad.detach() for grad in recording.grads)
