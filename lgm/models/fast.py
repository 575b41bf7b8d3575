"""Fast inference on a GPU: half precision, channels-last memory format, torch.compile, CUDA graphs.

On an H100 half of the network's time for a scene is launching kernels and half computing; a CUDA graph
removes the first, the rest reduces the second. Each of them is of use alone, and together they need channels
last: PyTorch's own GroupNorm has no kernel for it and converts back and forth, a compiled one has.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.kernels import GroupNorm, Recording
from lgm.models.network import StagedNetwork


class FastLGM:
    """A network that only infers, called as the network itself: images and cameras to Gaussians.

    net: an `lgm.models.splat_map.SplatMapNetwork`. It computes in the precision that its weights have
        (`Network.in_half`), its memory format changes in place, and it is not to be trained any more.
    compile: let torch.compile fuse what lies between convolutions; takes minutes at the first call.
    mode: of torch.compile, e.g. "max-autotune-no-cudagraphs", which tries kernels for longer.
    graph: record all kernels at the first call and replay them as one; for GPUs alone. Images of
        another shape are recorded anew.
    """

    def __init__(
        self,
        net: StagedNetwork,
        compile: bool = True,
        graph: bool = True,
        mode: str | None = None,
    ) -> None:
        device = next(net.parameters()).device
        if graph and device.type == "cpu":
            raise ValueError("graph=True records a GPU's kernels, and the network is on the CPU: graph=False")
        if mode is not None and not compile:
            raise ValueError(f"mode={mode!r} is torch.compile's and has no effect with compile=False")
        self.net = net.eval().requires_grad_(False)
        trunk: Any = getattr(net, "trunk", net)
        if compile or (graph and any(m.fuse for m in trunk.modules() if isinstance(m, GroupNorm))):
            # Channels-last weights make every convolution's output channels-last, which our own norms take.
            trunk.to(memory_format=torch.channels_last)
        if compile:
            trunk.compile(mode=mode, dynamic=False)
        self.graph = graph
        self._recordings: dict[torch.Size, Recording] = {}

    @torch.no_grad()
    def __call__(
        self,
        images: Float[Tensor, "B V 3 H W"],
        cameras: Cameras,
        alphas: Float[Tensor, "B V 1 H W"] | None = None,
    ) -> Gaussians:
        """Gaussians of images and cameras; see `Network.forward`."""
        x, anchors = self.net.encode(images, cameras, alphas)
        return self.net.decode(self.splat_map(x), anchors)

    @torch.no_grad()
    def splat_map(self, x: Float[Tensor, "B V 9 H W"]) -> Float[Tensor, "B V 14 h w"]:
        """Raw splat map; as the network's own. With a graph, the next call overwrites the result."""
        if not self.graph:
            return self.net.backbone(x)
        # One graph per input shape: a CUDA graph has its shapes baked in.
        if x.shape not in self._recordings:
            self._recordings[x.shape] = Recording(self.net.backbone, x)
        return self._recordings[x.shape](x)

    def backbone(self, x: Float[Tensor, "B V 9 H W"]) -> Float[Tensor, "B V 14 h w"]:
        """`splat_map`, under the name that `StagedNetwork` has for it."""
        return self.splat_map(x)
