"""Choice of a renderer's backend by name, or by speed ("auto")."""

import logging
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering.base import Renderer
from lgm.rendering.cuda_graph import CapturedRenderer
from lgm.rendering.gsplat_backend import GsplatRenderer
from lgm.rendering.inria_backend import InriaRenderer
from lgm.rendering.torch_backend import TorchRenderer
from lgm.rendering.triton_backend import TritonRenderer, check_max_gib
from lgm.types import RenderOutput

_log = logging.getLogger(__name__)
BACKENDS: dict[str, type[Renderer]] = {
    "triton": TritonRenderer,
    "gsplat": GsplatRenderer,
    "inria": InriaRenderer,
    "torch": TorchRenderer,
}
# Shapes in turn whose graphs are kept: of an evaluation's views, and of its turntables.
_NUM_GRAPHS = 2
# What is tried on a type of device, fastest first; `torch` comes last everywhere.
_FASTEST_FIRST = {"cuda": ("triton", "gsplat")}


class AutoRenderer(Renderer):
    """The fastest backend that is usable on the device that the Gaussians are on.

    By their device and not by the machine's: a run on the CPU of a machine with a GPU works too.

    Where that is triton and nothing but forward passes was asked for so far (evaluation, turntables), shapes
    that come again are drawn by a CUDA graph. The first pass with gradients ends that for good, and gives the
    graphs' memory back: a training keeps it for itself.

    max_gib: of triton, where that is the fastest; None is its default. The others have no such bound.
    """

    def __init__(self, max_gib: float | None = None) -> None:
        if max_gib is not None:
            check_max_gib(max_gib)  # wherever it is drawn
        self.max_gib = max_gib
        self._forward: _ForwardPasses | None = _ForwardPasses(max_gib)

    def __call__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        height: int,
        width: int,
        background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
    ) -> RenderOutput:
        """Render by the fastest usable backend; see `Renderer.__call__`."""
        renderer = fastest(gaussians.means.device.type, self.max_gib)
        # The graphs' memory goes back at the first pass with gradients: a training step needs it, and
        # training does not return to pure forward passes for long.
        if _wants_gradients(gaussians, background):
            self._forward = None
        if self._forward is not None and isinstance(renderer, TritonRenderer):
            # All that a CUDA graph has baked in: shapes, device, image size.
            shape = (tuple(cameras.shape), gaussians.means.shape, gaussians.means.device, height, width)
            renderer = self._forward.renderer(shape, renderer)
        return renderer(gaussians, cameras, height, width, background)


class _ForwardPasses:
    """Which renderer draws forward passes of a shape: from its second time on, one that captures it.

    What is drawn once is not worth a capture, which costs as much as some images.
    """

    def __init__(self, max_gib: float | None) -> None:
        self._max_gib = max_gib
        self._seen: set[tuple] = set()
        self._captured: CapturedRenderer | None = None

    def renderer(self, shape: tuple, eager: TritonRenderer) -> Renderer:
        if shape not in self._seen:
            self._seen.add(shape)
            return eager
        if self._captured is None:
            options = {} if self._max_gib is None else {"max_gib": self._max_gib}
            # Results are copied: an evaluation joins those of several calls.
            self._captured = CapturedRenderer(**options, num_graphs=_NUM_GRAPHS, overwrites=False)
        return self._captured


def _wants_gradients(gaussians: Gaussians, background: Sequence[float] | Tensor) -> bool:
    values = (*vars(gaussians).values(), background)
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in values)


def make_renderer(name: str = "auto", max_gib: float | None = None) -> Renderer:
    """The backend of that name, with its defaults; "auto" takes the fastest that is usable.

    max_gib: device memory in GiB that a call of "auto" or "triton" may hold; None is the default.
    Raises ValueError in one line for a name that is unknown or cannot be used here.
    """
    backends: dict[str, Callable[[], Renderer]] = {"auto": AutoRenderer, **BACKENDS}
    if name not in backends:
        raise ValueError(f"renderer name={name!r} is unknown; choose one of {', '.join(backends)}")
    if max_gib is None:
        return backends[name]()
    if name not in ("auto", "triton"):
        raise ValueError(f"renderer name={name!r} has no max_gib={max_gib}; leave it out, or name=triton")
    return AutoRenderer(max_gib) if name == "auto" else TritonRenderer(max_gib)


def name_of(renderer: Renderer, device_type: str) -> str:
    """The name of the backend that draws on devices of that type; of a class outside this package, the
    class's.
    """
    used = type(fastest(device_type, renderer.max_gib) if isinstance(renderer, AutoRenderer) else renderer)
    return next((name for name, backend in BACKENDS.items() if used is backend), used.__name__)


@cache
def fastest(device_type: str, max_gib: float | None = None) -> Renderer:
    """The fastest usable backend on devices of that type; cached, so that the choice is logged once."""
    refused = []
    # A backend's constructor is the probe: it raises ValueError where its package, compiler or GPU is
    # missing.
    for name in _FASTEST_FIRST.get(device_type, ()):
        try:
            bounded = name == "triton" and max_gib is not None
            renderer = TritonRenderer(max_gib) if bounded else BACKENDS[name]()
        except ValueError as error:
            refused.append(f"{name} cannot be used: {error}")
            continue
        reason = "; ".join(["the fastest", *refused])
        _log.info("renderer auto on %s: %s (%s)", device_type, name, reason)
        return renderer
    reason = "; ".join(refused) or "the only backend there"
    _log.info("renderer auto on %s: torch (%s)", device_type, reason)
    return TorchRenderer()
