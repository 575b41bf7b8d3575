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
        """Whether it can draw at all on devices of that type, where everything that it needs is there."""
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
        """Render Gaussians of B scenes from cameras [B, V].

        background: rgb in 0..1, for all images ([3]) or one an image ([B, V, 3]).
        """


class Backend(Renderer):
    """A renderer that draws by itself: checks, devices and precision are here, once; `_draw` only draws.

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
        """The precision that it draws these in."""
        return torch.float32

    @abstractmethod
    def _draw(
        self, gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor
    ) -> RenderOutput:
        """Render as `__call__` says, what fits each other and lies on one device that this renderer draws on.

        gaussians, background: in the precision that is drawn in. cameras: in the one that they came in.
        """
