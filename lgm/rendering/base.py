"""The one interface of every renderer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
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
