"""Inference as fast as a GPU takes it: half precision, channels last, compiled, replayed as one graph.

What the network costs a scene on an H100 is half launching kernels and half computing; a graph takes
away the first, the rest the second. Each of them is of use alone, and together they need channels last:
PyTorch's own GroupNorm has no kernel for it and converts back and forth, a compiled one has.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.models.lgm import LGM

_WARM_UP_CALLS = 3


def use_dtype(net: LGM, dtype: torch.dtype) -> LGM:
    """Keep and compute the network in `dtype`, in place; activations and decoding stay float32.

    float16: all of it, as the released weights are kept; a position is then good to 1/2000 of the world.
    bfloat16: all but the last layers, whose output are positions: in bfloat16 they would be a pixel off.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"dtype={dtype} cannot hold weights; choose float16, bfloat16 or float32")
    net.unet.to(dtype)
    net.conv.to(dtype)
    if dtype == torch.bfloat16:
        for layer in (net.unet.norm_out, net.unet.conv_out, net.conv):
            layer.float()
    return net


class FastLGM:
    """A network that only infers, called as the network itself: pictures and cameras to Gaussians.

    net: is changed in place (precision, memory format), and is not to be trained any more.
    dtype: as of `use_dtype`.
    compile: let torch.compile fuse what lies between convolutions; takes minutes at the first call.
    mode: of torch.compile, e.g. "max-autotune-no-cudagraphs", which tries kernels for longer.
    graph: record all kernels at the first call and replay them as one; for GPUs alone. Pictures of
        another shape are recorded anew.
    """

    def __init__(
        self,
        net: LGM,
        dtype: torch.dtype = torch.float16,
        compile: bool = True,
        graph: bool = True,
        mode: str | None = None,
    ) -> None:
        device = next(net.parameters()).device
        if graph and device.type == "cpu":
            raise ValueError("graph=True records a GPU's kernels, and the network is on the CPU: graph=False")
        self.net = use_dtype(net.eval(), dtype).requires_grad_(False)
        if compile:
            # Weights that lie so make every convolution's output lie so.
            net.unet.to(memory_format=torch.channels_last)
            net.unet.compile(mode=mode, dynamic=False)
        self.graph = graph
        self._recordings: dict[torch.Size, _Recording] = {}

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B V 3 H W"], cameras: Cameras) -> Gaussians:
        """images: 0..1 over a white background. cameras: as of `LGM.forward`."""
        raw = self.splat_map(self.net.network_input(images, cameras))
        return self.net.decode(raw, self.net.pixel_anchors(images, cameras))

    @torch.no_grad()
    def splat_map(self, x: Float[Tensor, "B V 9 H W"]) -> Float[Tensor, "B V 14 h w"]:
        """As of `LGM.splat_map`. With a graph, the next call overwrites the result."""
        if not self.graph:
            return self.net.splat_map(x)
        if x.shape not in self._recordings:
            self._recordings[x.shape] = _Recording(self.net.splat_map, x)
        return self._recordings[x.shape](x)


class _Recording:
    """All kernels of one call on pictures of one shape, to be replayed on others."""

    def __init__(self, compute: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.x = x.clone()
        searching = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True  # try the convolutions' kernels, once, and record the fastest
        try:
            with torch.cuda.device(x.device):
                self._warm_up(compute)
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):
                    self.raw = compute(self.x)
        finally:
            torch.backends.cudnn.benchmark = searching

    def _warm_up(self, compute: Callable[[Tensor], Tensor]) -> None:
        """Compile, search and allocate, which cannot be recorded; on another stream, as graphs want it."""
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_CALLS):
                compute(self.x)
        main.wait_stream(side)

    def __call__(self, x: Tensor) -> Tensor:
        self.x.copy_(x)
        self.graph.replay()
        return self.raw
