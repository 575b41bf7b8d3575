"""Fast denoising on a GPU: channels-last, fused norms, and the U-Net as one CUDA graph.

A call of the U-Net is some thousand kernels on a few small maps: a GPU computes them in less time than the
host needs to launch them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lgm.kernels import Recording, use_kernels
from lgm.multiview.unet import MultiViewUNet

SPEEDS = ("eager", "fast")


def use_speed(speed: str, *networks: nn.Module) -> None:
    """Let networks on a GPU compute channels-last and by our own kernels ("fast"), or as they are ("eager").

    Raises ValueError for another speed.
    """
    if speed not in SPEEDS:
        raise ValueError(f"speed={speed!r} is not one of {', '.join(SPEEDS)}")
    if speed == "fast":
        for network in networks:
            network.to(memory_format=torch.channels_last)  # half precision is convolved so without copies
            use_kernels(network, "auto")


class RecordedUNet:
    """`MultiViewUNet.predict`, recorded at the first call with tensors of some shapes and replayed from then
    on.

    Other shapes, or weights that have moved, are recorded anew in its place. A result is overwritten by the
    next call. On a CPU nothing is recorded.
    """

    def __init__(self, net: MultiViewUNet) -> None:
        self.net = net
        self._recording: Recording | None = None
        self._key: tuple[object, ...] = ()

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        camera: Tensor,
        num_frames: int,
        ip_img: Tensor | None = None,
    ) -> Tensor:
        """The noise in x; see `MultiViewUNet.predict`."""
        given = (x, timesteps, context, camera, *(() if ip_img is None else (ip_img,)))
        if not x.is_cuda:
            return self._compute(num_frames, *given)
        # A graph reads weights at fixed addresses; offloading or a cast moves them.
        addresses = tuple(parameter.data_ptr() for parameter in self.net.parameters())
        key = (num_frames, x.dtype, *(tensor.shape for tensor in given), addresses)
        if key != self._key:
            self._recording = None  # gives its memory back first
            self._recording = Recording(lambda *tensors: self._compute(num_frames, *tensors), *given)
            self._key = key
        return self._recording(*given)

    def _compute(self, num_frames: int, x: Tensor, timesteps: Tensor, *rest: Tensor) -> Tensor:
        context, camera, *image = rest
        x = x.contiguous(memory_format=torch.channels_last)
        return self.net.predict(x, timesteps, context, camera, num_frames, *image)
