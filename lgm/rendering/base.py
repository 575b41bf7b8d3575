"""The one interface of every renderer, and what all that draw Gaussians by themselves do first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering.checks import check_scene, current, on_device
from lgm.rendering.precision import full_precision
from lgm.types import RenderOutput


class Renderer(ABC):
    """Draws all views of all scenes in one call, differentiably, in float32 whatever the autocast."""

    @classmethod
    def draws_on(cls, device_type: str) -> bool:
        """Whether it can draw on devices of that type ("cpu", "cuda"), provided its package is installed."""
        return True

    @abstractmethod
    def __call__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        height: int,
        width: int,
        background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
    ) -> RenderOutput:
        """Alpha compositing of the Gaussians of B scenes from cameras [B, V], in images of height × width.

        background: rgb in 0..1, for all images ([3]) or one per image ([B, V, 3]).
        Returns images [B, V, 3, H, W], alphas and depths [B, V, 1, H, W]; images are not clamped to 0..1.
        Raises ValueError in one line for shapes or devices that do not fit each other.
        """


class Backend(Renderer):
    """A renderer with kernels of its own: checks, devices and precision are here, once; `_draw` only draws.

    label: its name in errors.
    """

    label: ClassVar[str]

    def __call__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        height: int,
        width: int,
        background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
    ) -> RenderOutput:
        """Check shapes and devices, then draw in full float32 on the Gaussians' device."""
        # The Gaussians decide on the device: they are the largest input, and the network made them there.
        device, dtype = gaussians.means.device, self._dtype(gaussians)
        background = on_device(background, device, dtype)
        check_scene(gaussians, cameras, height, width, background)
        if not self.draws_on(device.type):
            raise ValueError(
                f"{self.label} draws on NVIDIA GPUs and the Gaussians are on {device}; move them with .to(), "
                "or choose renderer=torch"
            )
        with current(device), full_precision(device.type):
            return self._draw(gaussians.to(dtype), cameras, height, width, background)

    def _dtype(self, gaussians: Gaussians) -> torch.dtype:
        """The precision in which these Gaussians are rendered; float32 unless a subclass offers more."""
        return torch.float32

    @abstractmethod
    def _draw(
        self, gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor
    ) -> RenderOutput:
        """Render as `__call__` says. Inputs are checked and lie on one device that this backend draws on.

        gaussians, background: in the precision of `_dtype`. cameras: in the precision they were passed in.
        """
